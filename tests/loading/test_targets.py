"""Sparse targets: dense in another way, mixed rows, the edges k = C and rest = 0."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.loading.targets import Batch, SparseTargets


def dense_by_hand(values, ids, rest, classes):
    rows = np.zeros((len(values), classes))
    for row, (masses, names, left) in enumerate(zip(values, ids, rest, strict=True)):
        others = set(range(classes)) - set(names.tolist())
        for name in others:
            rows[row, name] = left / (classes - len(masses))
        for mass, name in zip(masses, names, strict=True):
            rows[row, name] += mass
    return rows


def sparse(values, ids, rest, classes):
    return SparseTargets(
        values=torch.from_numpy(values.astype(np.float32)),
        ids=torch.from_numpy(ids.astype(np.int64)),
        rest=torch.from_numpy(rest.astype(np.float32)),
        classes=classes,
    )


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 40))
def test_dense_spreads_the_rest_over_the_classes_that_are_not_stored(seed, classes, k):
    k, generator = min(k, classes), np.random.default_rng(seed)
    masses = generator.dirichlet(np.ones(k + 1), size=5)
    ids = np.stack([generator.permutation(classes)[:k] for _ in range(5)])
    values, rest = masses[:, :k], masses[:, k]
    if k == classes:
        values, rest = values / values.sum(1, keepdims=True), np.zeros(5)
    dense = sparse(values, ids, rest, classes).dense()
    assert dense.dtype == torch.float32
    np.testing.assert_allclose(dense.numpy(), dense_by_hand(values, ids, rest, classes), atol=1e-6)
    np.testing.assert_allclose(dense.sum(1).numpy(), 1, atol=1e-5)


def test_hard_rows_among_soft_ones_stay_one_hot():
    values = np.array([[1, 0, 0], [0.5, 0.2, 0.1], [1, 0, 0]])
    ids = np.array([[0, 0, 0], [4, 1, 0], [3, 0, 0]])
    dense = sparse(values, ids, np.array([0, 0.2, 0]), 5).dense()
    assert dense[0].tolist() == [1, 0, 0, 0, 0]
    assert dense[2].tolist() == [0, 0, 0, 1, 0]
    np.testing.assert_allclose(dense[1].numpy(), [0.1, 0.2, 0.1, 0.1, 0.5], atol=1e-7)


def test_all_classes_stored():
    dense = sparse(np.array([[0.75, 0.25]]), np.array([[1, 0]]), np.array([0.0]), 2).dense()
    assert dense.tolist() == [[0.25, 0.75]]


def test_a_batch_moves_with_soft_and_with_hard_targets():
    soft = sparse(np.array([[1.0]]), np.array([[1]]), np.array([0.0]), 2)
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    moved = Batch(images, soft, ("a",)).to("meta")
    assert isinstance(moved.targets, SparseTargets)
    assert {t.device.type for t in (moved.images, moved.targets.values, moved.targets.ids, moved.targets.rest)} == {
        "meta"
    }
    assert moved.images.dtype == torch.uint8
    assert (moved.ids, moved.targets.classes, len(moved.targets)) == (("a",), 2, 1)
    hard = Batch(images, torch.tensor([1]), ("a",)).to("meta").targets
    assert isinstance(hard, torch.Tensor)
    assert hard.device.type == "meta"

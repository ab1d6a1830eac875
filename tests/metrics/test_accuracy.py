"""Top-k against a stable sort in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.metrics.accuracy import CHUNK, top_k_hits

from .largest import Largest


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([1, 2, 5]), st.booleans())
def test_top_k_is_a_stable_sort(seed, classes, k, ties):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(20, classes)).astype(np.float32)
    logits = np.round(logits) if ties else logits
    labels = generator.integers(0, classes, 20)
    first = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    assert top_k_hits(torch.from_numpy(logits), torch.from_numpy(labels), k) == (first == labels[:, None]).any(1).sum()


@pytest.mark.parametrize(("label", "hits"), [(0, 1), (1, 0), (2, 0)])
def test_of_equal_logits_the_first_class_wins(label, hits):
    assert top_k_hits(torch.zeros(1, 3), torch.tensor([label]), 1) == hits


def test_many_samples_are_counted_a_chunk_at_a_time():
    generator = np.random.default_rng(0)
    logits = np.round(generator.normal(size=(2 * CHUNK + 5, 40))).astype(np.float32)
    labels = generator.integers(0, 40, len(logits))
    first = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    logits_NC, labels_N = torch.from_numpy(logits), torch.from_numpy(labels)
    with Largest() as made:
        hits = top_k_hits(logits_NC, labels_N, 5)
    assert hits == (first == labels[:, None]).any(1).sum()
    assert made.bytes <= CHUNK * 40 * 4

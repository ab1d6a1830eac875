"""The codec: what is written is what is read back, within the bounds that the project promises."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.store.codec import VALUES_256, TopKLog8, top_k

from .small_store import densify, random_probabilities

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "records.json").read_text())
SIZES = [
    (2, 1),
    (2, 2),
    (3, 1),
    (3, 2),
    (3, 3),
    (4, 2),
    (10, 10),
    (11, 10),
    (100, 10),
    (1000, 10),
    (1000, 100),
    (65_536, 10),
]


def masses(values_BK: NDArray[np.float32], rest_B: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.concatenate([values_BK, rest_B[:, None]], axis=1).astype(np.float64)


def divergence(probabilities_BC: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """KL(top-k and rest written || read back) of each row, nats."""
    classes = probabilities_BC.shape[1]
    codec = TopKLog8(k, classes)
    values_BK, ids_BK = top_k(probabilities_BC, k)
    read_values_BK, read_ids_BK, read_rest_B = codec.decode(codec.encode(values_BK, ids_BK))
    assert (read_ids_BK == ids_BK).all()
    rest_B = np.maximum(1 - values_BK.sum(axis=1, dtype=np.float64), 0) if k < classes else np.zeros(len(values_BK))
    said, read = masses(values_BK, rest_B), masses(read_values_BK, read_rest_B)
    said /= said.sum(axis=1, keepdims=True)
    terms = np.where(said > 0, said * np.log(np.where(said > 0, said, 1) / np.where(said > 0, read, 1)), 0)
    losses_B: NDArray[np.float64] = terms.sum(axis=1)
    return losses_B


def one_hot(classes: int, off: float) -> NDArray[np.float32]:
    rows = np.full((min(classes, 64), classes), off, np.float64)
    np.fill_diagonal(rows, 1)
    shares: NDArray[np.float32] = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


@pytest.mark.parametrize(
    ("k", "classes", "stride"), [(10, 1000, 23), (10, 100, 19), (10, 10, 14), (1, 2, 2), (2, 2, 2), (10, 65_536, 31)]
)
def test_stride_is_exact(k, classes, stride):
    assert TopKLog8(k, classes).stride == stride


@pytest.mark.parametrize(("classes", "k"), SIZES)
def test_little_is_lost_on_flat_peaked_and_one_hot_rows(classes, k):
    generator = np.random.default_rng(classes + k)
    rows = 4 if classes > 2000 else 400
    suite = [
        random_probabilities(generator, rows, classes, 0.1),
        random_probabilities(generator, rows, classes, 2),
        random_probabilities(generator, rows, classes, 8),
        generator.dirichlet(np.full(classes, 0.1), rows).astype(np.float32),
        one_hot(classes, 0),
        one_hot(classes, 1e-9),
    ]
    losses = np.concatenate([divergence(rows_BC, k) for rows_BC in suite])
    assert losses.mean() <= 1e-4
    assert np.quantile(losses, 0.99) <= 1e-3


@pytest.mark.parametrize("classes", range(2, 30))
def test_exactly_flat_rows_lose_almost_nothing_whatever_k(classes):
    flat_BC = np.full((1, classes), 1 / classes, np.float32)
    for k in range(1, classes + 1):
        assert divergence(flat_BC, k)[0] <= 4e-4


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 70_000), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 4.0, 30.0]))
def test_any_row_reads_back_as_a_distribution(classes, k, seed, scale):
    classes, k = min(classes, 65_536), min(k, classes)
    generator = np.random.default_rng(seed)
    rows_BC = random_probabilities(generator, 3, classes, scale)
    codec = TopKLog8(k, classes)
    values_BK, ids_BK = top_k(rows_BC, k)
    records_BS = codec.encode(values_BK, ids_BK)
    assert records_BS.shape == (3, codec.stride)
    assert not codec.absent(records_BS).any()
    read_BK, read_ids_BK, rest_B = codec.decode(records_BS)
    assert (read_ids_BK == ids_BK).all()
    assert read_BK.min() >= 0
    assert rest_B.min() >= 0
    assert (np.diff(read_BK, axis=1) <= 1e-6).all()
    dense_BC = densify(read_BK, read_ids_BK, rest_B, classes)
    np.testing.assert_allclose(dense_BC.sum(axis=1, dtype=np.float64), 1, atol=2e-6)
    for record, values, ids, rest in zip(records_BS, read_BK, read_ids_BK, rest_B, strict=True):
        values_of_one, ids_of_one, rest_of_one = codec.decode_one(record.tobytes())
        assert ids_of_one == ids.tolist()
        np.testing.assert_allclose(values_of_one, values, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(rest_of_one, rest, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("classes", "k"), [(2, 1), (3, 1), (1000, 1), (2, 2), (5, 2), (1000, 10)])
def test_no_record_of_a_row_is_all_zero_even_where_everything_that_can_be_is(classes, k):
    rows_BC = np.concatenate([one_hot(classes, 0), np.full((1, classes), 1 / classes, np.float32)])
    codec = TopKLog8(k, classes)
    records_BS = codec.encode(*top_k(rows_BC, k))
    assert not codec.absent(records_BS).any()
    assert codec.absent(np.zeros((2, codec.stride), np.uint8)).all()


def test_one_hot_rows_read_back_exactly():
    codec = TopKLog8(10, 1000)
    values_BK, ids_BK = top_k(one_hot(1000, 0), 10)
    read_BK, read_ids_BK, rest_B = codec.decode(codec.encode(values_BK, ids_BK))
    assert (read_BK == values_BK).all()
    assert (read_ids_BK == ids_BK).all()
    assert (rest_B == 0).all()


def test_codes_span_zero_and_a_millionth_to_one():
    assert VALUES_256[0] == 0
    assert VALUES_256[1] == pytest.approx(1e-6)
    assert VALUES_256[255] == 1
    assert (np.diff(VALUES_256) > 0).all()


def test_top_k_orders_by_value_then_class_id():
    rows_BC = np.array([[0.2, 0.3, 0.2, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]], np.float32)
    values_BK, ids_BK = top_k(rows_BC, 4)
    assert ids_BK.tolist() == [[1, 3, 0, 2], [4, 0, 1, 2]]
    np.testing.assert_array_equal(values_BK, np.take_along_axis(rows_BC, ids_BK, axis=1))


def test_negative_zero_is_zero():
    values_BK, ids_BK = top_k(np.array([[-0.0, 1.0, 0.0]], np.float32), 3)
    assert ids_BK.tolist() == [[1, 0, 2]]
    TopKLog8(3, 3).encode(values_BK, ids_BK)


@pytest.mark.parametrize(
    "row",
    [[0.5, 0.6, 0.0], [np.nan, 0.5, 0.5], [-0.1, 0.6, 0.5], [2.0, -1.0, 0.0], [0.1, 0.1, 0.1], [np.inf, 0, 0]],
)
def test_rows_that_are_no_distribution_are_refused_by_number(row):
    with pytest.raises(StoreError, match="row 1 of the teacher's answer is not a distribution"):
        top_k(np.array([[0.5, 0.5, 0.0], row], np.float32), 2)


def test_encode_refuses_what_top_k_never_gives():
    codec = TopKLog8(2, 5)
    for values, ids in [
        ([[0.3, 0.5]], [[0, 1]]),
        ([[0.9, 0.5]], [[0, 1]]),
        ([[np.nan, 0.5]], [[0, 1]]),
        ([[0.5, 0.3]], [[1, 1]]),
        ([[0.5, 0.3]], [[0, 5]]),
        ([[0.5, 0.3]], [[-1, 0]]),
        ([[0.5, 0.3, 0.1]], [[0, 1, 2]]),
        ([[0.0, 0.0]], [[0, 1]]),
    ]:
        with pytest.raises(StoreError):
            codec.encode(np.array(values), np.array(ids))
    with pytest.raises(StoreError):
        TopKLog8(3, 3).encode(np.array([[0.4, 0.2, 0.1]]), np.array([[0, 1, 2]]))


@pytest.mark.parametrize(("k", "classes"), [(0, 5), (6, 5), (1, 1), (1, 65_537)])
def test_sizes_out_of_range_are_refused(k, classes):
    with pytest.raises(StoreError):
        TopKLog8(k, classes)


def test_nothing_of_a_batch_leaks_between_rows():
    codec = TopKLog8(10, 1000)
    rows_BC = random_probabilities(np.random.default_rng(0), 64, 1000)
    records_BS = codec.encode(*top_k(rows_BC, 10))
    alone = [codec.encode(*top_k(rows_BC[i : i + 1], 10))[0] for i in range(64)]
    np.testing.assert_array_equal(records_BS, np.stack(alone))
    together = codec.decode(records_BS)
    for i in range(64):
        for whole, part in zip(together, codec.decode(records_BS[i : i + 1]), strict=True):
            np.testing.assert_array_equal(whole[i], part[0])


@pytest.mark.parametrize("case", GOLDEN["records"], ids=lambda case: case["name"])
def test_golden_records(case):
    codec = TopKLog8(case["k"], case["classes"])
    record = codec.encode(np.array([case["values"]]), np.array([case["ids"]]))
    assert record.tobytes().hex() == case["record"]
    values, ids, rest = codec.decode(record)
    np.testing.assert_allclose(values[0], case["read_values"], rtol=1e-6)
    assert ids[0].tolist() == case["ids"]
    np.testing.assert_allclose(rest[0], case["read_rest"], rtol=1e-6)

"""The order of samples and of views."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.loading.order import chunked_order, epoch_order, view_of_epoch


def test_every_epoch_is_a_permutation_and_epochs_differ():
    orders = [epoch_order(7, epoch, 101) for epoch in range(4)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(101))
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_depends_on_seed_and_epoch_alone():
    np.testing.assert_array_equal(epoch_order(3, 5, 64), epoch_order(3, 5, 64))
    assert not np.array_equal(epoch_order(3, 5, 64), epoch_order(4, 5, 64))


def test_golden_order():
    assert epoch_order(0, 0, 8).tolist() == GOLDEN_ORDER
    assert [view_of_epoch(0, epoch, 5) for epoch in range(10)] == GOLDEN_VIEWS


def test_all_views_come_before_any_repeats():
    views = [view_of_epoch(1, epoch, 6) for epoch in range(18)]
    for first in range(0, 18, 6):
        assert sorted(views[first : first + 6]) == list(range(6))
    assert views[:6] != views[6:12] or views[6:12] != views[12:]


@settings(deadline=None)
@given(
    chunk_of=st.lists(st.integers(-3, 9), min_size=1, max_size=80),
    window=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 1000),
)
def test_in_chunks_every_sample_comes_once_and_windows_do_not_mix(chunk_of, window, seed, epoch):
    chunk_of = np.array(chunk_of, np.int32)
    order = chunked_order(seed, epoch, chunk_of, window)
    assert sorted(order.tolist()) == list(range(len(chunk_of)))
    met: list[int] = []
    for chunk in chunk_of[order].tolist():
        if chunk not in met:
            met.append(chunk)
        # the chunks at hand are always those of the window that began last
        assert met.index(chunk) // window == (len(met) - 1) // window


def test_chunks_and_samples_are_both_shuffled_anew_each_epoch():
    chunk_of = np.repeat(np.arange(20, dtype=np.int32), 7)
    orders = [chunked_order(5, epoch, chunk_of, 4) for epoch in range(3)]
    firsts = {tuple(sorted({int(chunk_of[i]) for i in order[: 4 * 7]})) for order in orders}
    assert len(firsts) == 3
    for order in orders:
        assert (np.diff(chunk_of[order[: 4 * 7]]) != 0).sum() > 14  # far from chunk after chunk
    np.testing.assert_array_equal(orders[1], chunked_order(5, 1, chunk_of, 4))
    assert not np.array_equal(orders[1], chunked_order(6, 1, chunk_of, 4))


def test_one_window_is_the_plain_order():
    chunk_of = np.repeat(np.arange(5, dtype=np.int32), 9)
    np.testing.assert_array_equal(chunked_order(2, 3, chunk_of, 5), epoch_order(2, 3, 45))


def test_golden_chunked_order():
    assert chunked_order(0, 0, np.array([0, 0, 0, 1, 1, 2, 2, 2], np.int32), 1).tolist() == GOLDEN_CHUNKED
    assert chunked_order(0, 0, np.array([0, 0, 0, 1, 1, 2, 2, 2], np.int32), 2).tolist() == GOLDEN_TWO


GOLDEN_ORDER = [1, 6, 4, 5, 7, 2, 0, 3]
GOLDEN_VIEWS = [3, 2, 0, 4, 1, 3, 2, 1, 0, 4]
GOLDEN_CHUNKED = [6, 5, 7, 1, 2, 0, 4, 3]
GOLDEN_TWO = [1, 6, 5, 7, 2, 0, 4, 3]

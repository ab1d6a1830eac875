"""The order of samples and of views."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.loading.order import SORTED, Bijection, EpochOrder, chunked_order, epoch_order, view_of_epoch
from buttress.views.keys import words


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


@given(count=st.integers(1, 3_000), seed=st.integers(0, 2**63 - 1))
def test_the_bijection_meets_every_sample_once(count, seed):
    met = Bijection(words(seed, 0, 0, 0, 8), count)(np.arange(count, dtype=np.uint64))
    assert sorted(met.tolist()) == list(range(count))


@pytest.mark.parametrize("count", [SORTED, SORTED + 1, 100_003])
def test_any_stretch_of_an_order_is_that_of_the_whole(count):
    order, whole = EpochOrder(3, 1, count), epoch_order(3, 1, count)
    assert len(order) == count
    assert np.array_equal(np.sort(whole), np.arange(count))
    for first, stop in [(0, 64), (640, 704), (count - 10, count), (count - 10, count + 54)]:
        np.testing.assert_array_equal(order.at(first, stop), whole[first:stop])


def test_large_orders_are_as_random_as_sorted_ones():
    """Places where a sample comes, and steps from one sample to the next, against an even spread (chi-square, 256
    cells: mean 255, deviation 22.6)."""
    count = 1 << 17
    orders = np.stack([epoch_order(11, epoch, count + 1) for epoch in range(4)]).astype(np.int64)
    for order in orders:
        cells = np.histogram2d(np.arange(count + 1), order, bins=16)[0]
        assert abs(((cells - cells.mean()) ** 2 / cells.mean()).sum() - 225) < 6 * np.sqrt(2 * 225)
        steps = np.histogram(np.diff(order) % (count + 1), bins=256)[0]
        assert abs(((steps - steps.mean()) ** 2 / steps.mean()).sum() - 255) < 6 * 22.6
    for one, other in ((0, 1), (1, 2), (0, 3)):
        assert abs(np.corrcoef(orders[one], orders[other])[0, 1]) < 6 / np.sqrt(count)


def test_a_thousand_million_samples_cost_no_memory_and_no_time():
    """The first indices within a second and 200 MB, of the whole process with its imports."""
    script = """
import time
from pathlib import Path
from buttress.loading.order import EpochOrder
started = time.process_time()
order = EpochOrder(0, 3, 10**9)
first, last = order.at(0, 1024), order.at(10**9 - 1024, 10**9)
largest = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(time.process_time() - started, int(largest.split()[1]) // 1024, len({*first, *last}))
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    print(told)
    assert float(told[0]) < 1
    assert int(told[1]) < 200
    assert int(told[2]) == 2048


def test_golden_large_order():
    """The same in plain integers, and the numbers themselves."""
    count, whole = 10**9, 2**64 - 1
    keys = [int(word) for word in words(0, 0, 0x6F726465722E7631, 4, 8)]

    def mixed(value):
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & whole
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & whole
        return value ^ (value >> 31)

    def sample(position):  # 2^30 is the next power of two: halves of 15 bits
        while True:
            high, low = divmod(position, 2**15)
            for number in range(0, 8, 2):
                high ^= mixed(low + keys[number] & whole) % 2**15
                low ^= mixed(high + keys[number + 1] & whole) % 2**15
            position = high * 2**15 + low
            if position < count:
                return position

    assert EpochOrder(0, 0, count).at(0, 100).tolist() == [sample(position) for position in range(100)]
    assert EpochOrder(0, 0, count).at(0, 4).tolist() == GOLDEN_LARGE


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
GOLDEN_LARGE = [829115104, 941593384, 192689731, 49683336]
GOLDEN_VIEWS = [3, 2, 0, 4, 1, 3, 2, 1, 0, 4]
GOLDEN_CHUNKED = [6, 5, 7, 1, 2, 0, 4, 3]
GOLDEN_TWO = [1, 6, 5, 7, 2, 0, 4, 3]

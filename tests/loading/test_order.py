"""The order of samples and of views."""

from __future__ import annotations

import numpy as np

from buttress.loading.order import epoch_order, view_of_epoch


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


GOLDEN_ORDER = [1, 6, 4, 5, 7, 2, 0, 3]
GOLDEN_VIEWS = [3, 2, 0, 4, 1, 3, 2, 1, 0, 4]

"""Wilson's interval against the equation it solves."""

import math
from typing import Any

import pytest

from buttress.metrics.intervals import Z_95, figure, fraction, wilson_interval


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (3, 7), (50, 100), (999, 1000), (0, 4000), (1234, 3925)])
def test_the_ends_solve_wilsons_equation(hits, count):
    share = hits / count
    for end in wilson_interval(hits, count):
        assert abs(share - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / count), abs=1e-9)


def test_a_known_value():
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I


@pytest.mark.parametrize(("hits", "count"), [(0, 3), (3, 3), (2, 3)])
def test_the_interval_holds_the_fraction_and_stays_in_0_to_1(hits, count):
    told: dict[str, Any] = {**fraction(hits, count)}
    assert 0 <= told["low"] <= told["value"] <= told["high"] <= 1
    assert told["low"] < told["high"]
    assert told["count"] == count


def test_a_figure_may_have_no_value():
    assert figure(None, 3) == {"value": None, "count": 3, "low": None, "high": None}

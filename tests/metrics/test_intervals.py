"""Wilson's interval against the equation it solves."""

import math
from typing import Any

import numpy as np
import pytest

from buttress.metrics.intervals import Z_95, bootstrap, figure, fraction, mean_of, wilson_interval


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


def test_a_bootstrap_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 400)
    told = bootstrap(
        {"mean": lambda times_N: float(times_N @ values / len(values))}, len(values), limits={"mean": 9.0}
    )["mean"]
    assert told["value"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert told["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert told["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert (
        told
        == bootstrap(
            {"mean": lambda times_N: float(times_N @ values / len(values))}, len(values), limits={"mean": 9.0}
        )["mean"]
    )


def test_a_bootstrap_interval_takes_off_what_resamples_are_too_high_by():
    """|mean| of values around 0 is above 0 on every resample."""
    values = np.random.default_rng(0).normal(0, 1, 100)
    values -= values.mean() - 1e-3
    told = bootstrap(
        {"size": lambda times_N: abs(float(times_N @ values / len(values)))}, len(values), limits={"mean": 9.0}
    )["size"]
    low, value, high = (float(told[key] or 0) for key in ("low", "value", "high"))
    assert low == 0.0
    assert value == pytest.approx(1e-3)
    assert value <= high


def test_a_bootstrap_interval_ends_at_the_greatest_value_and_one_sample_has_none():
    right = np.array([1.0] * 99 + [0.0])
    told = bootstrap({"share": mean_of(right)}, 100)["share"]
    assert told["high"] == 1.0
    assert bootstrap({"share": mean_of(np.ones(1))}, 1)["share"] == {
        "value": 1.0,
        "count": 1,
        "low": None,
        "high": None,
    }

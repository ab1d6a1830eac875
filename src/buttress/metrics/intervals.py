"""Figures with their uncertainty: `{"value", "count", "low", "high"}`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Figure = dict[str, float | int | None]

Z_95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson_interval(hits: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a fraction, both ends in 0..1 (Wilson 1927, JASA 22:209)."""
    assert 0 <= hits <= count
    assert count > 0
    share, scale = hits / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def fraction(hits: int, count: int) -> Figure:
    """`hits` of `count` with its 95 % Wilson interval."""
    low, high = wilson_interval(hits, count)
    return {"value": hits / count, "count": count, "low": low, "high": high}


RESAMPLES, SEED = 1000, 0
Statistic = Callable[[NDArray[np.int64]], float]


def bootstrap(
    statistics: Mapping[str, Statistic],
    count: int,
    *,
    limits: Mapping[str, float] | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Figure]:
    """Figures of `count` samples with their 95 % intervals by the basic bootstrap (Davison and Hinkley 1997, 5.2).

    What a statistic is too high by on resamples is taken off, as it is too high on the sample by about as much: figures
    that cannot be negative, such as an ECE, are. An interval ends at 0 and at the greatest possible value, and holds
    the value. There is none where all resamples say the same, as those of one sample do.

    Args:
        statistics: name -> a figure, 0 and up, of how often each sample counts, int64 [N], which sums to N.
        count: N, at least 1.
        limits: name -> the greatest possible value, where that is not 1.
        resamples: how many are drawn, the same for all figures and in every call.
    """
    draws = np.random.Generator(np.random.Philox(SEED))
    values: dict[str, list[float]] = {name: [] for name in statistics}
    for _ in range(resamples):
        times_N = np.bincount(draws.integers(0, count, count), minlength=count)
        for name, statistic in statistics.items():
            values[name].append(statistic(times_N))
    once_N = np.ones(count, np.int64)
    return {
        name: _basic(statistic(once_N), values[name], count, (limits or {}).get(name, 1.0))
        for name, statistic in statistics.items()
    }


def mean_of(values_N: NDArray[np.floating[Any]]) -> Statistic:
    """The mean of N values."""
    count = len(values_N)
    return lambda times_N: float(times_N @ values_N) / count


def _basic(value: float, resampled: list[float], count: int, most: float) -> Figure:
    bottom, top = np.quantile(resampled, (0.025, 0.975)).tolist()
    if bottom == top:
        return figure(value, count)
    low, high = min(max(2 * value - top, 0.0), value), max(min(2 * value - bottom, most), value)
    return {"value": value, "count": count, "low": low, "high": high}


def figure(value: float | None, count: int) -> Figure:
    """A figure without an interval; the value is none where the figure has no meaning."""
    return {"value": value, "count": count, "low": None, "high": None}

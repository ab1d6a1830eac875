"""Figures with their uncertainty: `{"value", "count", "low", "high"}`."""

from __future__ import annotations

import math

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


def figure(value: float | None, count: int) -> Figure:
    """A figure without an interval; the value is none where the figure has no meaning."""
    return {"value": value, "count": count, "low": None, "high": None}

"""Powers of two and logarithms from a committed table, by `+ - * /` alone: the same bits on every machine.

`exp2_table.f64` holds 4,097 little-endian float64: entry i is the double nearest to 2 ** (i / 4096). Between entries
both functions are linear (relative error below 4e-9), so each is the other's inverse.
"""

from __future__ import annotations

from bisect import bisect_right
from importlib.resources import files
from struct import unpack

STEPS = 4096
TABLE: tuple[float, ...] = unpack(f"<{STEPS + 1}d", (files("buttress.views") / "exp2_table.f64").read_bytes())


def exp2(exponent: float) -> float:
    """2 ** exponent for |exponent| <= 60."""
    whole = int(exponent // 1.0)
    position = (exponent - whole) * STEPS
    entry = min(int(position), STEPS - 1)
    low = TABLE[entry]
    mantissa = low + (position - entry) * (TABLE[entry + 1] - low)
    return mantissa * (1 << whole) if whole >= 0 else mantissa / (1 << -whole)


def log2(value: float) -> float:
    """The exponent that `exp2` maps to `value`, for 2**-60 <= value <= 2**60."""
    whole = 0
    while value >= 2.0:
        value, whole = value / 2.0, whole + 1
    while value < 1.0:
        value, whole = value * 2.0, whole - 1
    entry = bisect_right(TABLE, value) - 1
    return whole + (entry + (value - TABLE[entry]) / (TABLE[entry + 1] - TABLE[entry])) / STEPS

"""Figures as a reader wants them."""

from __future__ import annotations


def points(fraction: float, *, sign: bool = False) -> str:
    """A fraction as percentage points with one decimal."""
    return f"{100 * fraction:{'+' if sign else ''}.1f}"


def decimals(value: float, places: int) -> str:
    """A number with a fixed number of decimals."""
    return f"{value:.{places}f}"


def count(value: int) -> str:
    """A whole number with thousands set apart."""
    return f"{value:,}"


def byte_count(value: int) -> str:
    """A size in the unit that suits it."""
    size, unit = float(value), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{value:,} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds from two minutes on."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{int(seconds // 60)} min {int(seconds % 60)} s"

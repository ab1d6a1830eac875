"""Plots as SVG text that takes the colours of the page around it, in light and in dark."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

# Colours that matplotlib writes into the SVG, and the page's variables that take their places.
_INK, _QUIET, _BAR, _GOOD, _PAPER = "#010101", "#020202", "#030303", "#040404", "#050505"
_SERIES = tuple(f"#{number:02x}{number:02x}{number:02x}" for number in range(17, 25))
_VARIABLES = {
    _INK: "var(--ink)",
    _QUIET: "var(--quiet)",
    _BAR: "var(--bar)",
    _GOOD: "var(--good)",
    _PAPER: "var(--paper)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(_SERIES, start=1)},
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "buttress",
    "font.size": 11,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _QUIET,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A curve of one model.

    Args:
        key: the letter that stands for the model.
        series: its colour, 1 to 8.
        x, y: the points; of equal length.
        low, high: ends of the intervals of y, none where they have none.
    """

    key: str
    series: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def risk_svg(lines: Sequence[Line]) -> str:
    """Risk-coverage curves; x and y in 0..1."""
    in_percent = [
        replace(line, x=[100 * value for value in line.x], y=[100 * value for value in line.y]) for line in lines
    ]
    return lines_svg(
        in_percent, what="risk by coverage", xlabel="answered, % of the images", ylabel="of these wrong, %"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A model in a plane, or one of its levels: `x` above 0, `y` with its interval, and the words that hovering shows.

    Args:
        key: the letter that stands for the model; points that share it are joined by a line.
        series: its colour, 1 to 8.
        level: of an elastic model.
        lettered: whether the letter stands beside it.
    """

    key: str
    series: int
    x: float
    y: float
    low: float | None
    high: float | None
    words: str
    level: str | None = None
    lettered: bool = True


def lines_svg(lines: Sequence[Line], *, what: str, xlabel: str, ylabel: str) -> str:
    """Curves over the same axes, each with its model's letter at its end.

    Args:
        lines: at least one, with at least one point each.
        what: what the plot shows, for those who do not see it.
        xlabel, ylabel: of the axes.

    Returns: an `<svg>` as `reliability_svg`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.3), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            colour = _SERIES[line.series - 1]
            few: dict[str, Any] = {"marker": "o", "ms": 4} if len(line.x) < 12 else {}
            axes.plot(line.x, line.y, color=colour, linewidth=1.6, **few)
            if line.low is not None and line.high is not None:
                axes.vlines(line.x, line.low, line.high, color=colour, alpha=0.4, linewidth=1)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], min_n_ticks=2))
        axes.margins(x=0.02)
        axes.grid(axis="y", color=_QUIET, alpha=0.15, linewidth=0.8)
        _label_ends(axes, lines)
        return _svg(figure, what)


def scatter_svg(
    points: Sequence[Point],
    front: Sequence[Point],
    *,
    what: str,
    xlabel: str,
    ylabel: str,
    tick: Callable[[float], str],
) -> str:
    """Models in a plane with a logarithmic x, and the front of those that no other beats in both.

    Args:
        points: at least one; of an elastic model one for each level.
        front: those on the front, by ascending x.
        what: what the plot shows, for those who do not see it.
        xlabel, ylabel: of the axes.
        tick: how a value of x is written.

    Returns: an `<svg>` as `reliability_svg`; every point has a `<title>` of its words.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        if len(front) > 1:
            x, y = zip(*((each.x, each.y) for each in front), strict=True)
            axes.plot(x, y, color=_QUIET, drawstyle="steps-post", linestyle=(0, (4, 2)), linewidth=1.2)
        for key, times in Counter(each.key for each in points).items():
            if times > 1:
                _join(axes, [each for each in points if each.key == key])
        for place, each in enumerate(points):
            _draw_point(axes, each, f"point-{place}", left=_crowded(each, points[:place], points))
        smallest, largest = min(each.x for each in points), max(each.x for each in points)
        axes.set_xlim(smallest / 1.6, largest * 1.6)
        axes.set_xticks(_round_ticks(smallest / 1.6, largest * 1.6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(y=0.15)
        axes.grid(color=_QUIET, alpha=0.15, linewidth=0.8)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        text = _svg(figure, what)
    for place, each in enumerate(points):
        text = text.replace(f'<g id="point-{place}">', f"<g><title>{escape(each.words)}</title>", 1)
    return text


def _join(axes: Any, levels: Sequence[Point]) -> None:
    """A line through the levels of a model, by x."""
    in_order = sorted(levels, key=lambda each: (each.x, each.y))
    colour = _SERIES[levels[0].series - 1]
    axes.plot([each.x for each in in_order], [each.y for each in in_order], color=colour, linewidth=1.4)


def _draw_point(axes: Any, point: Point, gid: str, *, left: bool) -> None:
    colour = _SERIES[point.series - 1]
    if point.low is not None and point.high is not None:
        axes.plot([point.x, point.x], [point.low, point.high], color=colour, linewidth=1, alpha=0.6)
    size = 9 if point.lettered else 6.5
    (drawn,) = axes.plot([point.x], [point.y], "o", ms=size, color=colour, markeredgecolor=_PAPER)
    drawn.set_gid(gid)
    if not point.lettered:
        return
    place: dict[str, Any] = {"xytext": (-7, 5), "ha": "right"} if left else {"xytext": (7, 5)}
    axes.annotate(point.key, (point.x, point.y), textcoords="offset points", color=colour, fontweight="bold", **place)


def _crowded(point: Point, before: Sequence[Point], points: Sequence[Point]) -> bool:
    """Whether a point lies so near to one before it that their letters would hide one another."""
    lettered = [each for each in before if each.lettered]
    width = max(math.log(each.x) for each in points) - min(math.log(each.x) for each in points)
    height = max(each.y for each in points) - min(each.y for each in points)
    return any(
        abs(math.log(point.x / each.x)) <= 0.06 * width and abs(point.y - each.y) <= 0.06 * height for each in lettered
    )


def _round_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two values; only 1 where they are far apart."""
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high < 60 * low else (1,)
    ticks = [digit * 10.0**ten for ten in tens for digit in digits]
    return [tick for tick in ticks if low <= tick <= high]


def _label_ends(axes: Any, lines: Sequence[Line]) -> None:
    """The letters of the lines at their right ends, moved up where they would hide one another."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    placed: list[tuple[float, float]] = []
    for line in sorted(lines, key=lambda line: line.y[-1]):
        x, y = line.x[-1], line.y[-1]
        near = [height for place, height in placed if abs(place - x) < 0.06 * (right - left)]
        y = max([y, *(height + 0.065 * (top - bottom) for height in near)])
        placed.append((x, y))
        axes.annotate(
            line.key,
            (x, y),
            (5, 0),
            textcoords="offset points",
            color=_SERIES[line.series - 1],
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def reliability_svg(bins: Sequence[Mapping[str, Any]]) -> str:
    """A reliability diagram: a bar of accuracy per bin of confidence, and how many predictions fell there.

    Args:
        bins: each with `low` and `high` (edges, 0..1), `count`, `confidence` and `accuracy` (means, 0..1, of the
            predictions in it; not looked at where count is 0).

    Returns: an `<svg>` element without size, coloured by the page's CSS variables.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    filled = [entry for entry in bins if entry["count"]]
    most = max((entry["count"] for entry in filled), default=1)
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.6, 3.5), layout="constrained")
        shares, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 4))
        edges, widths = [entry["low"] for entry in filled], [entry["high"] - entry["low"] for entry in filled]
        axes.bar(edges, [entry["accuracy"] for entry in filled], widths, align="edge", color=_BAR, edgecolor=_GOOD)
        axes.plot([0, 1], [0, 1], color=_QUIET, linestyle=(0, (4, 3)), linewidth=1)
        axes.plot(
            [entry["confidence"] for entry in filled], [entry["accuracy"] for entry in filled], "o", ms=3.5, color=_INK
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        shares.bar(edges, [entry["count"] / most for entry in filled], widths, align="edge", color=_QUIET, alpha=0.5)
        shares.set(yticks=[], ylabel="count")
        shares.spines["left"].set_visible(False)
        return _svg(figure, "reliability diagram")


def _svg(figure: Any, what: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("'DejaVu Sans'", "inherit").replace("<svg ", f'<svg role="img" aria-label="{escape(what)}" ', 1)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text

"""Top-1 against what a model costs: the planes of a report, with their Pareto fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from buttress.pages.entry import Entry
from buttress.pages.evaluation import Figure
from buttress.pages.kinds import KINDS, Kind
from buttress.pages.plots import Point, scatter_svg
from buttress.pages.table import comparable
from buttress.pages.text import points

COUNTED = ("parameters", "bytes", "macs")  # told at every level; times are of the default alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """Top-1 against one kind of cost.

    Args:
        kind: of the cost.
        svg: the plot.
        costs: by key of the models in it what they cost, elastic ones at their default level.
        front: key and level (none of a model without) of what is on the front.
    """

    kind: Kind
    svg: str
    costs: Mapping[str, str]
    front: frozenset[tuple[str, str | None]]


def pareto_front(candidates: Sequence[Point]) -> list[Point]:
    """Those that no other beats: none has at most their x and at least their y, and one of both better. By x."""
    front: list[Point] = []
    for each in sorted(candidates, key=lambda point: (point.x, -point.y)):
        if not front or each.y > front[-1].y:
            front.append(each)
    return front


def scatters(entries: Sequence[Entry], baseline: Entry | None) -> list[Scatter]:
    """Top-1 against bytes, multiply-adds and latency, where known; of elastic models at every level.

    Against parameters too where a model has no bytes. Only models that were scored on the same images stand in one
    plane.
    """
    found = []
    sizes = {key: {each.key for each in entries if _points(KINDS[key], each)} for key in ("parameters", "bytes")}
    unsized = sizes["parameters"] - sizes["bytes"]
    for key in (*(["parameters"] if unsized else []), "bytes", "macs", "latency"):
        having = [each for each in entries if _points(KINDS[key], each)]
        if having:
            found.append(_scatter(KINDS[key], having, baseline))
    return found


def is_costed(entry: Entry) -> bool:
    """Whether it is known what a model costs."""
    return any(cost is not None for key in (*COUNTED, "latency") for _, _, cost in _costs(entry, key))


def _scatter(kind: Kind, having: Sequence[Entry], baseline: Entry | None) -> Scatter:
    first = baseline if baseline is not None and baseline in having else having[0]
    alike = [each for each in having if each is first or _same_plane(kind, each, first)]
    drawn = {each.key: _points(kind, each) for each in alike}
    every = [point for points_ in drawn.values() for point in points_]
    front = pareto_front(every)
    what = f"top-1 against {kind.title}"
    svg = scatter_svg(every, front, what=what, xlabel=kind.title, ylabel="top-1, %", tick=kind.text)
    costs = {each.key: kind.text(point.x) for each in alike for point in drawn[each.key] if point.level == each.level}
    return Scatter(kind=kind, svg=svg, costs=costs, front=frozenset((point.key, point.level) for point in front))


def _same_plane(kind: Kind, entry: Entry, first: Entry) -> bool:
    return comparable(KINDS["top1"], entry, first) and comparable(kind, entry, first)


def _points(kind: Kind, entry: Entry) -> list[Point]:
    """A model in the plane of a cost, or all its levels, the first of them with its letter."""
    if entry.evaluation is None or entry.evaluation.value("top1") is None:
        return []
    having = [(level, top1, cost) for level, top1, cost in _costs(entry, kind.key) if cost is not None]
    return [
        _point(kind, entry, level, top1, cost, lettered=place == 0) for place, (level, top1, cost) in enumerate(having)
    ]


def _costs(entry: Entry, key: str) -> list[tuple[str | None, Figure | None, float | None]]:
    """Level, top-1 and cost of a model: at each level where costs are counted so, else once.

    There is no cost where none is told, or one that no logarithmic axis can show.
    """
    told = entry.evaluation
    if told is None:
        return []
    if told.levels and key in COUNTED:
        return [(each.level, each.figures["top1"], _shown(getattr(each, key))) for each in told.levels]
    return [(told.level, told.figures.get("top1"), _shown(told.value(key)))]


def _shown(cost: float | None) -> float | None:
    return cost if cost is not None and 1e-12 < cost < 1e18 else None


def _point(kind: Kind, entry: Entry, level: str | None, top1: Figure | None, cost: float, *, lettered: bool) -> Point:
    assert top1 is not None and top1.value is not None
    return Point(
        key=entry.key,
        series=entry.series,
        x=cost,
        y=100 * top1.value,
        low=None if top1.low is None else 100 * top1.low,
        high=None if top1.high is None else 100 * top1.high,
        words=f"{_named(entry, level)}: top-1 {points(top1.value)} %, {kind.title} {kind.text(cost)}",
        level=level,
        lettered=lettered,
    )


def _named(entry: Entry, level: str | None) -> str:
    return entry.name if level is None or f"@{level}" in entry.name else f"{entry.name}, {level}"

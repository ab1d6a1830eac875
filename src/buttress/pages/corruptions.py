"""How models hold when images are corrupted, as tables whose cells are coloured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from buttress.metrics.corruptions import COMMON, EXTRA
from buttress.pages.entry import Entry
from buttress.pages.evaluation import Figure
from buttress.pages.kinds import KINDS
from buttress.pages.table import comparable, signed
from buttress.pages.text import points

CLEAN = "clean"
Told = Mapping[str, Sequence[Figure]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shade:
    """A cell: its text, how strongly it is coloured, 0..1, and as what, up or down."""

    text: str
    strength: float
    direction: str = "up"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """Top-1 of one model: `clean` as text, of `count` images, and groups of rows, each a name and its cells.

    half: the widest half of an interval, in points, as text; empty where there is none.
    """

    entry: Entry
    clean: str
    count: int
    half: str
    severities: int
    groups: tuple[tuple[str, tuple[tuple[str, tuple[Shade, ...]], ...]], ...]


def heat_map(entry: Entry) -> HeatMap | None:
    """The heat map of a model; none where it was not looked at with corruptions."""
    told = corruptions_of(entry)
    if told is None:
        return None
    clean = told[CLEAN][0]
    groups = tuple(
        (title, tuple((_words(name), _shades(told[name])) for name in names)) for title, names in _groups(told)
    )
    halves = [figure.half for figures in told.values() for figure in figures if figure.half is not None]
    return HeatMap(
        entry=entry,
        clean=points(_value(clean)),
        count=clean.count,
        half=points(max(halves)) if halves else "",
        severities=max(len(figures) for figures in told.values()),
        groups=groups,
    )


def differences(entries: Sequence[Entry], baseline: Entry | None) -> tuple[list[Entry], list[tuple[str, list[Shade]]]]:
    """The models that can be compared with the baseline, and by corruption what their mean top-1 differs by.

    The last row is the mean of the common corruptions. Nothing where there is no baseline, or no other model.
    """
    base = None if baseline is None else corruptions_of(baseline)
    if baseline is None or base is None:
        return [], []
    kind = KINDS["corruption_error"]
    others = [
        each for each in entries if each is not baseline and corruptions_of(each) and comparable(kind, each, baseline)
    ]
    tolds = [told for each in others if (told := corruptions_of(each)) is not None]
    names = [name for _, listed in _groups(base) for name in listed if all(name in told for told in tolds)]
    if not others or not names:
        return [], []
    rows = [(_words(name), [_mean(told[name]) - _mean(base[name]) for told in tolds]) for name in names]
    common = [row for name, row in zip(names, rows, strict=True) if name in COMMON]
    if common:
        means = [statistics.fmean(row[1][place] for row in common) for place in range(len(tolds))]
        rows.append((f"mean of the common {len(common)}", means))
    most = max(max(abs(value) for value in values) for _, values in rows) or 1.0
    return others, [(name, [_difference(value, most) for value in values]) for name, values in rows]


def corruptions_of(entry: Entry) -> Told | None:
    """What the evaluation tells of corruptions, `clean` among them."""
    return None if entry.evaluation is None else entry.evaluation.details.get("corruptions")


def _groups(told: Told) -> list[tuple[str, list[str]]]:
    known = {f"the common {len(COMMON)}": list(COMMON), "extra": list(EXTRA)}
    known["others"] = [name for name in told if name not in (CLEAN, *COMMON, *EXTRA)]
    groups = [(title, [name for name in names if told.get(name)]) for title, names in known.items()]
    return [(title, names) for title, names in groups if names]


def _shades(figures: Sequence[Figure]) -> tuple[Shade, ...]:
    """A cell per severity, and their mean."""
    values = [*map(_value, figures), _mean(figures)]
    return tuple(Shade(text=f"{100 * value:.0f}", strength=min(max(value, 0.0), 1.0)) for value in values)


def _difference(value: float, most: float) -> Shade:
    text = signed(KINDS["top1"], value)
    return Shade(text=text, strength=abs(value) / most, direction="up" if value > 0 else "down")


def _mean(figures: Sequence[Figure]) -> float:
    return statistics.fmean(map(_value, figures))


def _value(figure: Figure) -> float:
    assert figure.value is not None  # of corruptions every one has a value
    return figure.value


def _words(name: str) -> str:
    return name.replace("_", " ")

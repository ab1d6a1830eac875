"""The summary table of a report: figures by models, what is best, and what differs from the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from buttress.pages.entry import Entry
from buttress.pages.evaluation import Figure
from buttress.pages.kinds import GROUPS, KINDS, NO_BREAK, Kind, short

OTHER_IMAGES, OTHER_MACHINE, OWN_IMAGES = "other images or classes", "another machine", "its own val data"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A figure less the baseline's, or over it where `factor`.

    Args:
        value, low, high: the difference with its 95 % interval; no ends where one of the two figures has none.
        factor: whether it is a ratio.
    """

    value: float
    low: float | None
    high: float | None
    factor: bool = False

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out no difference at all."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One figure of one model as text: `value`, `interval`, `difference` with `verdict` good, bad or none."""

    value: str
    interval: str = ""
    best: bool = False
    difference: str = ""
    verdict: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A figure of every model, in their order; `better` is higher, lower or none."""

    key: str
    title: str
    better: str | None
    cells: tuple[Cell | None, ...]


def summary_rows(entries: Sequence[Entry], baseline: Entry | None) -> list[tuple[str, list[Row]]]:
    """Group -> its rows; rows and groups that nobody has a figure for are left out."""
    groups = [
        (title, [_row(kind, entries, baseline) for kind in kinds if any(_has(each, kind.key) for each in entries)])
        for title, kinds in GROUPS
    ]
    return [(title, rows) for title, rows in groups if rows]


def other_rows(entries: Sequence[Entry]) -> list[Row]:
    """Figures that this version has no name for, as they are: which way is better is not known."""
    keys = sorted({key for each in entries for key in _figures(each)} - set(KINDS))
    rows = []
    for key in keys:
        kind = Kind(key=key, title=key.replace("_", " "), better=None, text=plain)
        rows.append(_row(kind, entries, None))
    return rows


def plain(value: float) -> str:
    """A number of an unknown kind."""
    return short(value) if abs(value) >= 1000 else f"{value:.4g}"


def comparable(kind: Kind, one: Entry, other: Entry) -> bool:
    """Whether two models' figures of a kind are of the same thing."""
    if one.evaluation is None or other.evaluation is None:
        return False
    if kind.of == "model":
        return True
    if kind.of == "machine":
        return _machine(one) is not None and _machine(one) == _machine(other)
    if kind.key in ("mce", "relative_mce"):
        names = [each.evaluation.settings.get("baseline") for each in (one, other) if each.evaluation]
        if names[0] != names[1]:
            return False
    if kind.key in ("real_top1", "multilabel_top1") and _sets(one, kind) != _sets(other, kind):
        return False
    marks = [
        each.evaluation.images if kind.of == "images" else each.evaluation.part
        for each in (one, other)
        if each.evaluation is not None
    ]
    return marks[0] is not None and marks[0] == marks[1]


def difference(kind: Kind, figure: Figure, base: Figure) -> Difference | None:
    """What a figure differs by from the baseline's, both of independent intervals.

    The interval is that of independent normal errors: half-widths add as squares. A factor has none. There is no
    difference where a figure has no value.
    """
    if figure.value is None or base.value is None:
        return None
    if kind.factor:
        return (
            None if base.value <= 0 else Difference(value=figure.value / base.value, low=None, high=None, factor=True)
        )
    value = figure.value - base.value
    if figure.half is None or base.half is None:
        return Difference(value=value, low=None, high=None)
    half = math.hypot(figure.half, base.half)
    return Difference(value=value, low=value - half, high=value + half)


def signed(kind: Kind, value: float) -> str:
    """A difference with its sign; none of one that rounds to nothing."""
    text = kind.text(abs(value))
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else MINUS) + text


def difference_text(kind: Kind, told: Difference) -> str:
    """`+1.2 [+0.3, +2.1]`, or `× 0.52`."""
    if told.factor:
        return f"\N{MULTIPLICATION SIGN}{NO_BREAK}{told.value:.3g}"
    if told.low is None or told.high is None:
        return signed(kind, told.value)
    return f"{signed(kind, told.value)} [{signed(kind, told.low)},{NO_BREAK}{signed(kind, told.high)}]"


def best_of(kind: Kind, entries: Sequence[Entry], baseline: Entry | None) -> set[str]:
    """Keys of the models with the best value among those that can be compared; of one alone, or of equals, none.

    They are compared with the baseline, or where it has no such figure with the first model that has one.
    """
    having = [each for each in entries if _value(each, kind.key) is not None and each.evaluation is not None]
    if kind.better is None or not having:
        return set()
    first = baseline if baseline is not None and baseline in having else having[0]
    values = {each.key: _value(each, kind.key) for each in having if each is first or comparable(kind, each, first)}
    known = [value for value in values.values() if value is not None]
    best = (max if kind.better == "higher" else min)(known)
    if min(known) == max(known):
        return set()
    return {key for key, value in values.items() if value == best}


def figure_of(entry: Entry, key: str) -> Figure | None:
    """A figure of the evaluation, else what the last scored epoch of the training recorded."""
    return _figures(entry).get(key)


def from_training(entry: Entry) -> bool:
    """Whether the model's figures are those of its training's val data, for want of an evaluation."""
    return entry.evaluation is None and bool(_figures(entry))


def _figures(entry: Entry) -> dict[str, Figure]:
    if entry.evaluation is not None:
        return dict(entry.evaluation.figures)
    return next((epoch.val for epoch in reversed(entry.history) if epoch.val), {})


def _has(entry: Entry, key: str) -> bool:
    return key in _figures(entry)


def _value(entry: Entry, key: str) -> float | None:
    figure = figure_of(entry, key)
    return None if figure is None else figure.value


def _row(kind: Kind, entries: Sequence[Entry], baseline: Entry | None) -> Row:
    best = best_of(kind, entries, baseline)
    cells = tuple(_cell(kind, each, baseline, best) for each in entries)
    return Row(key=kind.key, title=kind.title, better=kind.better, cells=cells)


def _cell(kind: Kind, entry: Entry, baseline: Entry | None, best: set[str]) -> Cell | None:
    figure = figure_of(entry, kind.key)
    if figure is None:
        return None
    if figure.value is None:
        return Cell(value="undefined")
    told, verdict, note = "", "", ""
    base = None if baseline is None or entry is baseline else figure_of(baseline, kind.key)
    if baseline is not None and base is not None and base.value is not None:
        if comparable(kind, entry, baseline):
            found = difference(kind, figure, base)
            told, verdict = ("", "") if found is None else (difference_text(kind, found), _verdict(kind, found))
        else:
            note = OTHER_MACHINE if kind.of == "machine" else OTHER_IMAGES
    return Cell(
        value=kind.text(figure.value),
        interval=_interval(kind, figure),
        best=entry.key in best,
        difference=told,
        verdict=verdict,
        note=OWN_IMAGES if entry.evaluation is None else note,
    )


def _interval(kind: Kind, figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"[{kind.text(figure.low)},{NO_BREAK}{kind.text(figure.high)}]"


def _verdict(kind: Kind, told: Difference) -> str:
    if not told.clear or kind.better is None:
        return ""
    return "good" if (told.value > 0) == (kind.better == "higher") else "bad"


def _machine(entry: Entry) -> list[tuple[str, int]] | None:
    """Where latency and throughput were measured, as far as the document says."""
    cost = entry.evaluation.details.get("cost") if entry.evaluation is not None else None
    eager = [each for each in cost or () if each["variant"] == "eager"]
    return sorted({(each["device"], each["threads"]) for each in eager}) or None


def _sets(entry: Entry, kind: Kind) -> tuple[Any, ...]:
    """Which right labels, and how many images were judged by them."""
    assert entry.evaluation is not None
    figure = entry.evaluation.figures.get(kind.key)
    return entry.evaluation.data.get("label_sets"), None if figure is None else figure.count

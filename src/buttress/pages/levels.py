"""The levels of elastic models as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from buttress.pages.entry import Entry
from buttress.pages.evaluation import AtLevel
from buttress.pages.kinds import KINDS
from buttress.pages.scatters import Scatter
from buttress.pages.text import points

NOT_TOLD = "\N{EN DASH}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelRow:
    """A level as text: half the interval of its top-1 is empty where there is none.

    fronts: the kinds of cost in whose planes it is on the front.
    """

    level: str
    top1: str
    half: str
    nll: str
    ece: str
    bytes: str
    macs: str
    fronts: frozenset[str]


def level_tables(entries: Sequence[Entry], planes: Sequence[Scatter]) -> list[tuple[Entry, list[LevelRow]]]:
    """The elastic models, each with a row for every level, the default first.

    planes: that they were drawn in.
    """
    return [
        (entry, [_row(entry, each, planes) for each in entry.evaluation.levels])
        for entry in entries
        if entry.evaluation is not None and entry.evaluation.levels
    ]


def _row(entry: Entry, told: AtLevel, planes: Sequence[Scatter]) -> LevelRow:
    top1 = told.figures["top1"]
    assert top1.value is not None
    return LevelRow(
        level=told.level,
        top1=points(top1.value),
        half="" if top1.half is None else points(top1.half),
        nll=_text("nll", told.figures["nll"].value if "nll" in told.figures else None),
        ece=_text("ece", told.figures["ece"].value if "ece" in told.figures else None),
        bytes=_text("bytes", told.bytes),
        macs=_text("macs", told.macs),
        fronts=frozenset(plane.kind.key for plane in planes if (entry.key, told.level) in plane.front),
    )


def _text(key: str, value: float | None) -> str:
    return NOT_TOLD if value is None else KINDS[key].text(value)

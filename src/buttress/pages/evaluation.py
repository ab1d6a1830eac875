"""An evaluation as `buttress evaluate --out` wrote it, checked: what a page shows has the kind that it expects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buttress.errors import SettingsError
from buttress.files import read_json

NOT_FIGURES = ("details", "settings", "versions", "data")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure: its value, of how many images, and the ends of its interval where it has one."""

    value: float | None
    count: int
    low: float | None
    high: float | None

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class AtLevel:
    """An elastic model at one of its levels: its figures, top1 with a value among them, and what it costs there.

    Args:
        level: by name.
        figures: key -> figure.
        parameters, bytes, macs: of an image; none where they are not told.
    """

    level: str
    figures: Mapping[str, Figure]
    parameters: int | None
    bytes: int | None
    macs: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What one document tells.

    Args:
        file: where it stands.
        figures: key -> figure, also those that this version has no name for.
        details: name -> what is more than a number; see `_DETAILS` for those that are checked, others are left out.
        settings, versions, data: of the evaluation, as they were written.
        faults: what was left out because it is of the wrong kind, a line each.
    """

    file: Path
    figures: Mapping[str, Figure]
    details: Mapping[str, Any]
    settings: Mapping[str, Any]
    versions: Mapping[str, Any]
    data: Mapping[str, Any]
    faults: tuple[str, ...]

    def value(self, key: str) -> float | None:
        """The value of a figure, none where it is not told or has no meaning."""
        return self.figures[key].value if key in self.figures else None

    @property
    def levels(self) -> Sequence[AtLevel]:
        """Those of an elastic model, the default first; none of another one."""
        told: Sequence[AtLevel] = self.details.get("levels", ())
        return told

    @property
    def level(self) -> str | None:
        """The level that `figures` are of; none of a model without levels."""
        told = self.settings.get("level")
        if self.levels:
            return self.levels[0].level
        return told if isinstance(told, str) else None

    @property
    def images(self) -> tuple[str, ...] | None:
        """What says which images it is of, how they are labelled and over which classes; none where it does not."""
        fingerprint = self.fingerprint
        more = (str(self.data.get(key)) for key in ("count", "classes", "labels"))
        return (fingerprint, *more) if fingerprint is not None else None

    @property
    def fingerprint(self) -> str | None:
        """Of the images' ids."""
        told = self.data.get("fingerprint")
        return told if isinstance(told, str) else None

    @property
    def part(self) -> tuple[Any, ...] | None:
        """What says which part of the images was corrupted and moved, and how; none where none was."""
        asked = (self.settings.get("corruption_samples"), self.settings.get("seed"))
        return None if None in asked or self.images is None else (self.images, *map(str, asked))


def read_evaluation(file: Path) -> Evaluation:
    """Read and check a document; parts of the wrong kind are left out and told in `faults`.

    Raises: SettingsError, where it cannot be read or is no evaluation at all.
    """
    document = read_json(file, SettingsError)
    kept = isinstance(document, dict) and all(isinstance(document.get(name), dict) for name in NOT_FIGURES)
    if not kept:
        raise SettingsError(
            f"{file}: not an evaluation; make one by `buttress evaluate MODEL --data IMAGES --out FILE`"
        )
    faults: list[str] = []
    told = {key: value for key, value in document.items() if key not in NOT_FIGURES and _may_be_figure(value)}
    figures = _checked(told, dict.fromkeys(told, _figure), "", faults)
    details = _checked(document["details"], _DETAILS, "details.", faults)
    if not figures and not faults:
        raise SettingsError(f"{file}: has no figure in it; make it again by `buttress evaluate`")
    return Evaluation(
        file=file,
        figures=figures,
        details=details,
        settings=document["settings"],
        versions=document["versions"],
        data=document["data"],
        faults=tuple(f"{file}: {fault}; left out" for fault in faults),
    )


def figures_from(told: Any, place: str) -> dict[str, Figure]:
    """Figures that a training recorded.

    Raises: SettingsError, where they are no figures.
    """
    return {key: _figure(value, f"{place}.{key}") for key, value in _mapping(told, place).items()}


def number(value: Any, place: str) -> float:
    """A finite number, as it is.

    Raises: SettingsError, where it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{place} is {_shown(value)}, not a number")
    if abs(value) > 1e300 or not math.isfinite(value):
        raise SettingsError(f"{place} is {_shown(value)}, not a finite number")
    return value


def _checked(
    told: Mapping[str, Any], readers: Mapping[str, Callable[[Any, str], Any]], place: str, faults: list[str]
) -> dict[str, Any]:
    """What the readers accept; what they do not is left out and told."""
    found = {}
    for key, reader in readers.items():
        if key in told:
            try:
                found[key] = reader(told[key], f"{place}{key}")
            except SettingsError as fault:
                faults.append(str(fault))
    return found


def _may_be_figure(value: Any) -> bool:
    """A mapping with a value; anything that is not even a mapping is a figure that was spoilt."""
    return not isinstance(value, dict) or "value" in value


def _figure(value: Any, place: str) -> Figure:
    entry = value if isinstance(value, dict) else None
    if entry is None:
        raise SettingsError(f"{place} is {_shown(value)}, not a figure")
    low, high = (_optional(entry.get(name), f"{place}.{name}") for name in ("low", "high"))
    if low is not None and high is not None and low > high:
        raise SettingsError(f"{place}.low is above its high")
    return Figure(
        value=_optional(entry.get("value"), f"{place}.value"),
        count=_count(entry.get("count", 0), f"{place}.count"),
        low=low,
        high=high,
    )


def _reliability(value: Any, place: str) -> list[dict[str, Any]]:
    """The bins as `reliability_svg` takes them."""
    bins = []
    for number_, entry in enumerate(_entries(value, place)):
        here = f"{place}[{number_}]"
        count = _count(entry.get("images"), f"{here}.images")
        means = {"confidence": entry.get("confidence"), "accuracy": entry.get("top1")}
        bins.append(
            {
                "low": number(entry.get("low"), f"{here}.low"),
                "high": number(entry.get("high"), f"{here}.high"),
                "count": count,
                **{name: number(mean, f"{here}.{name}") if count else None for name, mean in means.items()},
            }
        )
    return bins


def _risk_coverage(value: Any, place: str) -> tuple[list[float], list[float]]:
    curve = _mapping(value, place)
    coverage, risk = (_numbers(curve.get(name), f"{place}.{name}") for name in ("coverage", "risk"))
    if len(coverage) != len(risk) or not coverage:
        raise SettingsError(f"{place}: coverage and risk are not of the same points")
    return coverage, risk


def _corruptions(value: Any, place: str) -> dict[str, list[Figure]]:
    """Name -> figures by severity; `clean` has one."""
    told = {}
    for name, figures in _mapping(value, place).items():
        listed = figures if isinstance(figures, list) else [figures]
        told[str(name)] = [_valued(each, f"{place}.{name}") for each in listed]
    if "clean" not in told:
        raise SettingsError(f"{place}: the clean images are missing")
    return told


def _scales(value: Any, place: str) -> list[tuple[float, Figure]]:
    entries = _entries(value, place)
    return [(number(each.get("side"), f"{place}.side"), _figure(each.get("top1"), f"{place}.top1")) for each in entries]


def _confused(value: Any, place: str) -> list[dict[str, Any]]:
    found = []
    for entry in _entries(value, place):
        ids = entry.get("ids")
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise SettingsError(f"{place}.ids is {_shown(ids)}, not a list of names")
        names = {name: str(entry.get(name)) for name in ("truth", "predicted")}
        found.append({**names, "images": _count(entry.get("images"), f"{place}.images"), "ids": ids})
    return found


def _cost(value: Any, place: str) -> list[dict[str, Any]]:
    found = []
    for entry in _entries(value, place):
        seconds, why = entry.get("seconds"), entry.get("not_measured")
        words = {name: "-" if entry.get(name) is None else str(entry[name]) for name in ("variant", "device")}
        counts = {name: _count(entry.get(name), f"{place}.{name}") for name in ("batch", "threads")}
        timed = {
            "seconds": None if seconds is None else _figure(seconds, f"{place}.seconds"),
            "why": None if why is None else str(why),
            "agrees": entry.get("agrees") is not False,  # with the logits of the plain network
        }
        found.append({**words, **counts, **timed})
    return found


def _slices(value: Any, place: str) -> list[dict[str, Any]]:
    """Parts of the images by name, with every figure or number that is told of them."""
    found = []
    for entry in _entries(value, place):
        told = {key: each for key, each in entry.items() if key != "name"}
        found.append({"name": str(entry.get("name")), "told": {key: _loose(each) for key, each in told.items()}})
    return found


def _levels(value: Any, place: str) -> list[AtLevel]:
    found: list[AtLevel] = []
    for number_, entry in enumerate(_entries(value, place)):
        here, level = f"{place}[{number_}]", entry.get("level")
        if not isinstance(level, str) or level in [each.level for each in found]:
            raise SettingsError(f"{here}.level is {_shown(level)}, not a name of its own")
        figures = figures_from(entry.get("figures"), f"{here}.figures")
        if "top1" not in figures or figures["top1"].value is None:
            raise SettingsError(f"{here}.figures: top1 has no value")
        costs = {
            name: None if entry.get(name) is None else _count(entry[name], f"{here}.{name}")
            for name in ("parameters", "bytes", "macs")
        }
        found.append(AtLevel(level=level, figures=figures, **costs))
    return found


def _loose(value: Any) -> Figure | str:
    """A figure where it is one, else the words that stand there."""
    if isinstance(value, dict) and "value" in value:
        return _figure(value, "details.slices")
    return str(value)


_DETAILS: dict[str, Callable[[Any, str], Any]] = {
    "reliability": _reliability,
    "risk_coverage": _risk_coverage,
    "corruptions": _corruptions,
    "scales": _scales,
    "confused": _confused,
    "cost": _cost,
    "slices": _slices,
    "levels": _levels,
}


def _valued(value: Any, place: str) -> Figure:
    figure = _figure(value, place)
    if figure.value is None:
        raise SettingsError(f"{place}: a figure has no value")
    return figure


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{place} is {_shown(value)}, not figures by name")
    return value


def _entries(value: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise SettingsError(f"{place} is {_shown(value)}, not a list of entries")
    return value


def _numbers(value: Any, place: str) -> list[float]:
    if not isinstance(value, list):
        raise SettingsError(f"{place} is {_shown(value)}, not a list of numbers")
    return [number(each, place) for each in value]


def _optional(value: Any, place: str) -> float | None:
    return None if value is None else number(value, place)


def _count(value: Any, place: str) -> int:
    if number(value, place) < 0 or value != int(value):
        raise SettingsError(f"{place} is {_shown(value)}, not a count")
    return int(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

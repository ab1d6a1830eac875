"""The page of `buttress inspect`: a browser of samples, of their views and of what the teacher said, in one HTML file.

The template holds the head of the page, and `views.js` all that happens in it. What was said of the samples travels as
one block of JSON, from which the browser makes cards as they come into sight; the pictures follow in blocks of their
own, so that the page can be used while they are still being read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from buttress.errors import SettingsError
from buttress.files import write_atomic
from buttress.metrics.health import Health
from buttress.metrics.label_errors import CUT
from buttress.metrics.overview import overview
from buttress.pages.pictures import english
from buttress.pages.templates import page_template
from buttress.pages.text import byte_count, count, points
from buttress.pages.thumbnails import VIEWS, Thumbnail, Thumbnails
from buttress.terminal import note, number, progress

SAMPLE_LISTS = ("label_errors", "hardest", "ambiguous")
GROUP_LISTS = ("duplicates", "near_duplicates")
GROUP = 6  # samples of a group that are shown
KEPT = 10  # classes shown of an answer, at most
BLOCK = 40  # samples whose pictures travel together
CLASSES = 200  # rows of the table of classes, at most
_HIDDEN = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}  # what could end or nest the block in the page


def write_views_page(document: Mapping[str, Any], health: Health, top: int, samples: int, out: Path) -> None:
    """Write the page.

    Args:
        document: what `buttress inspect --json` writes; the lists are its.
        health: what it was made from.
        top: entries shown of each list, the flagged labels among them.
        samples: shown beside those, at most: the ones that are most worth a look.
        out: the HTML file.

    Raises: SettingsError where Jinja2 is not installed.
    """
    require_libraries()
    lists = _lists(document, top)
    places = _places(health, lists, samples)
    figures = overview(health)
    data, pictures = _data(health, places)
    data["lists"] = _numbered(lists, health, places)
    page = page_template(
        "views.html.j2", bytes=byte_count, count=count, english=english, number=number, percent=_percent
    ).render(
        document=document,
        lists=lists,
        figures=figures,
        classes=figures["classes"][:CLASSES],
        shown=len(places),
        views_shown=min(VIEWS, health.store.views),
        data=_json(data),
        pictures=[_json(pictures[first : first + BLOCK]) for first in range(0, len(pictures), BLOCK)],
    )
    encoded = page.encode(errors="replace")
    write_atomic(out, encoded)
    note(f"{out}: {len(places):,} of {number(len(health.source), 'sample')}, {byte_count(len(encoded))}")


def require_libraries() -> None:
    """Raises: SettingsError where a library that the page needs is not installed."""
    if find_spec("jinja2") is None:
        raise SettingsError("the page needs jinja2: pip install buttress[demo]; or leave out --out")


def _lists(document: Mapping[str, Any], top: int) -> dict[str, list[dict[str, Any]]]:
    """What the page shows of each list: of the labels those that are flagged."""
    shown = {name: document[name] or [] for name in (*SAMPLE_LISTS, *GROUP_LISTS)}
    shown["label_errors"] = [entry for entry in shown["label_errors"] if entry["flagged"]]
    return {name: entries[:top] for name, entries in shown.items()}


def _places(health: Health, lists: Mapping[str, list[dict[str, Any]]], samples: int) -> list[int]:
    """Places in the source of what the page shows, most worth a look first."""
    ranked = health.ranked().tolist()
    listed = {one for entries in lists.values() for entry in entries for one in _ids(entry)}
    ids = health.source.ids
    return [place for rank, place in enumerate(ranked) if rank < samples or ids[place] in listed]


def _ids(entry: Mapping[str, Any]) -> Sequence[str]:
    """The samples of an entry that are shown."""
    return entry["ids"][:GROUP] if "ids" in entry else [entry["id"]]


def _numbered(
    lists: Mapping[str, list[dict[str, Any]]], health: Health, places: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """The lists, with samples by their number on the page."""
    numbers = {health.source.ids[place]: number for number, place in enumerate(places)}
    return {
        name: [
            {
                "samples": [numbers[one] for one in _ids(entry)],
                "more": len(entry.get("ids", [])[GROUP:]),
                "mixed_labels": not entry.get("same_label", True),
            }
            for entry in entries
        ]
        for name, entries in lists.items()
    }


def _data(health: Health, places: Sequence[int]) -> tuple[dict[str, Any], list[list[str | None]]]:
    """What was said of the samples, a class by its number in `names`; and their pictures, the whole image first."""
    names, thumbnails = _Names(), Thumbnails(health.source, health.store, health.coverage)
    judged = {place: number for number, place in enumerate(health.places.tolist())}
    samples, pictures = [], []
    with progress("drawing views", len(places), "samples") as bar:
        for place in places:
            whole, views = thumbnails.draw(place)
            samples.append({**_sample(health, place, judged.get(place), names), "picture": whole is not None})
            samples[-1]["views"] = [_view(health, place, view, names) for view in views]
            pictures.append([whole, *(view.picture for view in views)])
            bar.advance()
    fixed = {"side": thumbnails.side, "views_stored": health.store.views, "block": BLOCK}
    return {"samples": samples, "names": names.table, **fixed}, pictures


def _sample(health: Health, place: int, judged: int | None, names: _Names) -> dict[str, Any]:
    label = health.label(place)
    said = {"unjudged": _why(health, place)} if judged is None else _judgement(health, judged, names)
    return {"id": health.source.ids[place], "label": None if label is None else names.number(label), **said}


def _view(health: Health, place: int, view: Thumbnail, names: _Names) -> dict[str, Any]:
    values, ids, _ = health.store.target(int(health.coverage.rows[place]), view.view)
    return {
        "view": view.view,
        "picture": view.picture is not None,
        "mixed": None if view.partner is None else health.source.ids[view.partner],
        "top": _top(health, names, values, ids),
    }


def _judgement(health: Health, judged: int, names: _Names) -> dict[str, Any]:
    """What the teacher said of a sample over its views, and what follows for its label."""
    said = health.said
    wrong, given = float(health.wrong_N[judged]), float(said.given_N[judged])
    return {
        "top": _top(health, names, said.values_NK[judged].tolist(), said.ids_NK[judged].tolist()),
        "entropy": _short(float(said.entropy_N[judged])),
        "disagreement": _short(float(said.disagreement_N[judged])),
        "wrong": None if np.isnan(wrong) else _short(wrong),
        "given": None if np.isnan(given) else _short(given),
        "flagged": wrong > CUT,
    }


def _why(health: Health, place: int) -> str:
    """Why a sample was not judged."""
    if health.coverage.rows[place] < 0:
        return "not in the reinforcement"
    if health.coverage.undecodable[place]:
        return "could not be decoded when it was labelled"
    return "every view is mixed with another image"


def _top(health: Health, names: _Names, values: Sequence[float], ids: Sequence[int]) -> list[tuple[int, float]]:
    """The likeliest classes with their probabilities; from the fourth on those alone that are not next to nothing."""
    pairs = zip(ids[:KEPT], values, strict=False)
    return [
        (names.number(health.store.classes[one]), _short(value))
        for place, (one, value) in enumerate(pairs)
        if place < 3 or value >= 0.001
    ]


class _Names:
    """Numbers for the names of classes, those of the labels and those of the teacher.

    Fields:
        table: per number the name, and how the page shows it.
    """

    def __init__(self) -> None:
        self.table: list[tuple[str, str]] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.table)
            self.table.append((name, english(name)))
        return self._numbers[name]


def _json(data: Any) -> str:
    """Compact JSON that cannot end the block of the page in which it stands, marked as safe."""
    from markupsafe import Markup

    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign, escaped in _HIDDEN.items():
        text = text.replace(sign, escaped)
    return Markup(text)


def _short(value: float) -> float:
    """Five digits: more than a page shows, and enough to sort by. What is not quite 1 does not become 1."""
    return 0.99999 if 0.99999 < value < 1 else float(f"{value:.5g}")


def _percent(fraction: float) -> str:
    """A probability in percent; one that rounds to all or nothing is not said to be that."""
    if 0 < fraction < 0.0005 or 0.9995 <= fraction < 1:
        return (
            "<\N{NO-BREAK SPACE}0.1\N{NO-BREAK SPACE}%"
            if fraction < 0.5
            else ">\N{NO-BREAK SPACE}99.9\N{NO-BREAK SPACE}%"
        )
    return f"{points(fraction)}\N{NO-BREAK SPACE}%"

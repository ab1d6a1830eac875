"""The page of `buttress inspect`: a picture of every sample that somebody should look at, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError
from buttress.files import write_atomic
from buttress.models.imagenet import english_names, is_wordnet_id
from buttress.pages.report import count, points, shown
from buttress.pages.templates import page_template
from buttress.sources import Source, UndecodableImage, decode
from buttress.terminal import number

SIDE = 112  # pixels of the longer side of a picture


def write_health_page(document: Mapping[str, Any], source: Source, top: int, out: Path) -> None:
    """Write the page.

    Args:
        document: what `buttress inspect --json` writes; every figure on the page is one of its.
        source: the images.
        top: entries shown of each list, the flagged labels among them.
        out: the HTML file.

    Raises: SettingsError where Jinja2 is not installed.
    """
    require_libraries()
    lists = {
        name: (document[name] or [])[:top]
        for name in ("label_errors", "duplicates", "near_duplicates", "hardest", "ambiguous")
    }
    page = page_template("health.html.j2", count=count, english=_english, number=number, percent=_percent).render(
        document=document, lists=lists, pictures=_pictures(lists, source), top=top
    )
    write_atomic(out, page.encode())


def require_libraries() -> None:
    """Raises: SettingsError where a library that the page needs is not installed."""
    if find_spec("jinja2") is None:
        raise SettingsError("the page needs jinja2: pip install buttress[demo]; or leave out --out")


def _percent(fraction: float) -> str:
    """A probability in percent; one that rounds to all or nothing is not said to be that."""
    if 0 < fraction < 0.0005 or 0.9995 <= fraction < 1:
        return (
            "<\N{NO-BREAK SPACE}0.1\N{NO-BREAK SPACE}%"
            if fraction < 0.5
            else ">\N{NO-BREAK SPACE}99.9\N{NO-BREAK SPACE}%"
        )
    return f"{points(fraction)}\N{NO-BREAK SPACE}%"


def _english(name: str) -> str:
    """The usual name of an ImageNet class that is given by its WordNet id; any other as it is."""
    return english_names(name)[0] if is_wordnet_id(name) else name


def _pictures(lists: Mapping[str, list[dict[str, Any]]], source: Source) -> dict[str, dict[str, Any] | None]:
    """Id -> picture of every sample that is shown, none where it cannot be decoded any more."""
    ids = {one for entries in lists.values() for entry in entries for one in entry.get("ids", [entry.get("id")])}
    places = {sample_id: place for place, sample_id in enumerate(source.ids) if sample_id in ids}
    return {sample_id: _picture(source, place) for sample_id, place in places.items()}


def _picture(source: Source, place: int) -> dict[str, Any] | None:
    try:
        return shown(_shrunk(decode(source[place].data)))
    except UndecodableImage:
        return None


def _shrunk(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    height, width = pixels_HWC.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    return np.asarray(cv2.resize(pixels_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)

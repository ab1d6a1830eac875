"""The page that shows what the demo found: one self-contained HTML file, in light and dark, for desk and phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.files import write_atomic
from buttress.pages.pictures import shown
from buttress.pages.plots import Line, reliability_svg, risk_svg
from buttress.pages.templates import page_template, require_libraries
from buttress.pages.text import byte_count, count, decimals, duration, points


def write_demo_report(results: Mapping[str, Any], images: Sequence[NDArray[np.uint8]], out: Path) -> None:
    """Write the page of `buttress demo`.

    Args:
        results: the content of `results.json`; every figure on the page stands in it.
        images: the views of `results["views"]`, in their order, each uint8 [H, W, 3].
        out: the HTML file.

    Raises: SettingsError where Jinja2 or matplotlib is not installed.
    """
    assert len(images) == len(results["views"])
    require_libraries()
    arms = [
        {"key": ascii_uppercase[place], "series": place + 1, "name": row["title"]}
        for place, row in enumerate(results["rows"])
    ]
    page = page_template(
        "demo.html.j2", points=points, decimals=decimals, count=count, bytes=byte_count, duration=duration
    ).render(
        results=results,
        headline=headline(results["gain"]),
        summary=summary(results),
        reliability=[(row, reliability_svg(row["reliability"])) for row in results["rows"]],
        arms=arms,
        risk=risk_svg([_risk_line(arm, row["risk_coverage"]) for arm, row in zip(arms, results["rows"], strict=True)]),
        views=[(view, shown(image)) for view, image in zip(results["views"], images, strict=True)],
    )
    write_atomic(out, page.encode())


def _risk_line(arm: Mapping[str, Any], curve: Mapping[str, Any]) -> Line:
    return Line(key=arm["key"], series=arm["series"], x=curve["coverage"], y=curve["risk"])


def headline(gain: Mapping[str, Any]) -> str:
    """The one line that says what came out."""
    if gain["holds"]:
        return f"{points(gain['top1'], sign=True)} points of top-1 from the same images"
    return f"No gain here: top-1 changes by {points(gain['top1'], sign=True)} points"


def summary(results: Mapping[str, Any]) -> str:
    """What was compared with what."""
    data, store = results["data"], results["store"]
    wrong = f", {count(data['planted'])} of them under a wrong label," if data["planted"] else ""
    return (
        f"The same small model, trained for the same number of steps on the same {count(data['train'])} images{wrong} "
        f"once with their labels and once with what a teacher said about {store['views']} views of each. "
        "The teacher looked once; training never calls it."
    )

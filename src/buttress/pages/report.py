"""The page that shows what the demo found: one self-contained HTML file, in light and dark, for desk and phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError
from buttress.files import write_atomic
from buttress.pages.plots import reliability_svg
from buttress.pages.templates import page_template

SMALL = 64  # pixels: a view of at most this side is shown with its pixels visible


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
    page = page_template(
        "report.html.j2", points=points, decimals=decimals, count=count, bytes=byte_count, duration=duration
    ).render(
        results=results,
        headline=headline(results["gain"]),
        summary=summary(results),
        reliability=[(row, reliability_svg(row["reliability"])) for row in results["rows"]],
        views=[(view, shown(image)) for view, image in zip(results["views"], images, strict=True)],
    )
    write_atomic(out, page.encode())


def require_libraries() -> None:
    """Raises: SettingsError where a library that the page needs is not installed."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise SettingsError(f"the page needs {' and '.join(missing)}: pip install buttress[demo]")


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


def shown(image_HWC: NDArray[np.uint8]) -> dict[str, Any]:
    """An image as a page embeds it: `uri`, its PNG as data, and `pixels`, whether they are to stay visible."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HWC)).save(buffer, format="PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"uri": f"data:image/png;base64,{encoded}", "pixels": max(image_HWC.shape[:2]) <= SMALL}

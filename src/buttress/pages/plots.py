"""Plots as SVG text that takes the colours of the page around it, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Colours that matplotlib writes into the SVG, and the page's variables that take their places.
_INK, _QUIET, _BAR, _GOOD = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_INK: "var(--ink)", _QUIET: "var(--quiet)", _BAR: "var(--bar)", _GOOD: "var(--good)"}
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
        return _svg(figure)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("'DejaVu Sans'", "inherit")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text

"""What a compression took and gave, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buttress.errors import ModelError
from buttress.files import read_json
from buttress.runs.run import COMPRESSION, Run
from buttress.terminal import print_table

PARTS = {"indices": "indices", "palettes": "palettes", "unclustered": "not clustered", "file": "packed file"}


def print_summary(run: Run) -> None:
    """Print compression.json as tables; nothing where the run has none.

    Raises: ModelError, where it is no JSON.
    """
    path = run.path / COMPRESSION
    if not path.is_file():
        return
    told = read_json(path, ModelError)
    scored = any(row["figures"] for row in told["rows"])
    columns = ["", "MB", *(["top-1 %", "NLL", "ECE %"] if scored else [])]
    print_table("what was made, MB = 1e6 bytes", columns, [_row(row, scored) for row in told["rows"]])
    if "sizes" in told:
        rows = [[name, f"{told['sizes'][part] / 1e6:.3f}"] for part, name in PARTS.items()]
        print_table("the packed weights", ["", "MB"], rows)
    if told.get("gap"):
        name = max(told["gap"], key=told["gap"].__getitem__)
        print(f"soft to hard weights, relative distance: at most {100 * told['gap'][name]:.1f} % ({name})")


def _row(row: Mapping[str, Any], scored: bool) -> list[str]:
    size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.3f}"
    if not scored:
        return [row["what"], size]
    if row["figures"] is None:
        return [row["what"], size, "", "", ""]
    top1, nll, ece = (row["figures"][name]["value"] for name in ("top1", "nll", "ece"))
    return [row["what"], size, f"{100 * top1:.1f}", f"{nll:.3f}", f"{100 * ece:.1f}"]

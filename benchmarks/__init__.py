"""Measurements, each one command; what is claimed is a line of docs/results/NAME.jsonl that one of them wrote."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from buttress.versions import library_versions

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def commit() -> str:
    """The commit that is checked out, with + where the tree differs from it."""
    here = Path(__file__).parents[1]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", "src", "benchmarks"], cwd=here, check=False
    ).returncode
    return head.stdout.strip() + ("+" if changed else "")


def record(name: str, line: dict[str, Any], module: str) -> None:
    """Append one result to docs/results/NAME.jsonl, with the command, commit, versions and processor.

    Of a folder of this machine in the command the last part alone is kept: others cannot use it.
    """
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    document = {
        "command": " ".join(["python", "-m", module, *words]),
        "commit": commit(),
        "versions": library_versions(),
        "machine": platform.machine(),
        **line,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(document, sort_keys=True) + "\n")

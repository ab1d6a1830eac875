"""What decoding less does to accuracy: runs of `python -m benchmarks.imagenette inputs` beside those from the files.

python -m benchmarks.imagenette_inputs        # the table, into docs/sources.md
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.imagenette import ARM_NAMES, CASE_NAMES, INPUT_NAMES, figure_cells, runs_of
from benchmarks.trials import markdown, put_table

PAGE = Path(__file__).parents[1] / "docs" / "sources.md"
MARK = "<!-- made by `python -m benchmarks.imagenette_inputs` -->"


def table() -> str:
    """Mean ± standard deviation over seeds, by what was decoded."""
    rows = []
    for case, arm in (("all", "hard"), ("all", "reinforced"), ("wrong", "reinforced"), ("few", "reinforced")):
        told = {name: runs_of(case, arm, name) for name in INPUT_NAMES}
        for inputs, found in told.items():
            if found and any(told[name] for name in told if name != "folder"):
                rows.append([CASE_NAMES[case], ARM_NAMES[arm].strip("*"), INPUT_NAMES[inputs], *figure_cells(found)])
    return markdown(["labels", "trained on", "decoded from", "seeds", "top-1 %", "NLL", "ECE %"], rows)


if __name__ == "__main__":
    put_table(PAGE, MARK, table())

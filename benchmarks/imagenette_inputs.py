"""What decoding less does to accuracy: runs of `python -m benchmarks.imagenette inputs` beside those from the files.

python -m benchmarks.imagenette_inputs        # the table
"""

from __future__ import annotations

from benchmarks.imagenette import ARM_NAMES, CASE_NAMES, INPUT_NAMES, figure_cells, runs_of
from benchmarks.trials import markdown


def table() -> str:
    """Mean ± standard deviation over seeds, by what was decoded."""
    rows = []
    for case, arm in (("all", "hard"), ("all", "reinforced"), ("wrong", "reinforced"), ("few", "reinforced")):
        for inputs, told in INPUT_NAMES.items():
            if found := runs_of(case, arm, inputs):
                rows.append([CASE_NAMES[case], ARM_NAMES[arm].strip("*"), told, *figure_cells(found)])
    return markdown(["labels", "trained on", "decoded from", "seeds", "top-1 %", "NLL", "ECE %"], rows)


if __name__ == "__main__":
    print(table())

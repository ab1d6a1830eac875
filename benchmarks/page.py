"""benchmarks/README.md: the last recorded figures of every benchmark, with the commit and versions they were taken at.

python -m benchmarks.page
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.trials import lines, markdown, put_table

PAGE = Path(__file__).parent / "README.md"
MARK = "<!-- made by `python -m benchmarks.page` -->"
BENCHMARKS = ("views", "store", "labelling", "training")
HEADER = ("", "median", "smallest to largest", "must", "aim", "")


def last(name: str) -> dict[str, Any] | None:
    """The last line of docs/results/NAME.jsonl that holds figures."""
    found = [line for line in lines(name) if "figures" in line]
    return found[-1] if found else None


def section(name: str, line: dict[str, Any]) -> str:
    """The table of one benchmark, and where its figures come from."""
    versions = ", ".join(f"{library} {version}" for library, version in sorted(line["versions"].items()))
    told = f"`{line['command']}`, commit {line['commit'][:10]}, {line['machine']}; {versions}."
    return f"## {name}\n\n{told}\n\n{markdown(HEADER, [row(figure) for figure in line['figures']])}"


def row(figure: dict[str, Any]) -> list[str]:
    """One figure; a bound that does not hold is said to be missed."""
    sign = "at most" if figure["better"] == "lower" else "at least"
    bound, aim = figure["must"], figure["stretch"]
    verdict = "" if bound is None else "holds" if figure["holds"] else "**missed**"
    median = figure["ratio"] if "ratio" in figure else figure["value"]
    low, high = figure["spread"]
    cells = [figure["name"], _short(median), f"{_short(low)} to {_short(high)}"]
    return [*cells, "" if bound is None else f"{sign} {bound:g}", "" if aim is None else f"{aim:g}", verdict]


def _short(value: float) -> str:
    return f"{value:.3g}"


def table() -> str:
    """All of them."""
    return "\n\n".join(section(name, line) for name in BENCHMARKS if (line := last(name)))


if __name__ == "__main__":
    put_table(PAGE, MARK, table())

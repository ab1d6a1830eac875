"""Figures that are compared with a bound: CPU time of this process, ways by turns, medians and spreads over rounds."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import record


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    Args:
        name: of the figure.
        samples: one per round.
        better: "lower" or "higher".
        must: the bound that the project holds itself to; none = told for comparison.
        stretch: what it aims at beyond that.
        kind: "ratio" (times as fast as a peer), or "value" (microseconds of CPU time, bytes, nats).
    """

    name: str
    samples: tuple[float, ...]
    better: Literal["lower", "higher"]
    must: float | None = None
    stretch: float | None = None
    kind: Literal["ratio", "value"] = "ratio"

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def holds(self) -> bool:
        """Whether the median keeps the bound."""
        if self.must is None:
            return True
        return self.median <= self.must if self.better == "lower" else self.median >= self.must

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.name,
            self.kind: self.median,
            "better": self.better,
            "must": self.must,
            "stretch": self.stretch,
            "spread": [min(self.samples), max(self.samples)],
            "holds": self.holds,
        }


def cpu_us(work: Callable[[], int]) -> float:
    """Microseconds of CPU time per thing; `work` returns how many it did."""
    start = time.process_time_ns()
    count = work()
    return (time.process_time_ns() - start) / 1e3 / count


def by_turns(
    ways: Mapping[str, Callable[[range], int]], things: int, chunk: int, rounds: int
) -> dict[str, list[float]]:
    """Microseconds of CPU time a thing of each way, one number a round; the ways by turns within every chunk of things.

    Args:
        ways: each does the things of a range, and returns how many that were.
        things, chunk: how many there are, and how many of them a way does before it is the next one's turn.
        rounds: after one that is not counted.
    """
    told: dict[str, list[float]] = {name: [] for name in ways}
    gc.collect()
    gc.freeze()  # else whoever makes many objects pays for walks over all those of torch
    for turn in range(rounds + 1):
        used, done = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
        for first in range(0, things, chunk):
            span = range(first, min(first + chunk, things))
            for name, way in ways.items():
                start = time.process_time_ns()
                done[name] += way(span)
                used[name] += time.process_time_ns() - start
        if turn:
            for name in ways:
                told[name].append(used[name] / 1e3 / done[name])
    return told


def over(numerator: Sequence[float], denominator: Sequence[float]) -> tuple[float, ...]:
    """Paired ratios."""
    return tuple(a / b for a, b in zip(numerator, denominator, strict=True))


def table(figures: Sequence[Figure]) -> str:
    """The figures for a terminal."""
    rows = [f"{'':32}{'median':>10}  {'smallest .. largest':>22}  {'must':>10}  {'aim':>7}"]
    for line in figures:
        sign, unit = ("<=" if line.better == "lower" else ">="), ("x" if line.kind == "ratio" else "")
        spread = f"{_short(min(line.samples))} .. {_short(max(line.samples))}"
        bound = "" if line.must is None else f"{sign} {line.must:g}"
        aim = "" if line.stretch is None else f"{line.stretch:g}"
        verdict = "" if line.must is None else "holds" if line.holds else "FAILS"
        rows.append(f"{line.name:32}{_short(line.median):>9}{unit:1}  {spread:>22}  {bound:>10}  {aim:>7}  {verdict}")
    return "\n".join(row.rstrip() for row in rows)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.1e}"


def asked(description: str | None, name: str) -> argparse.Namespace:
    """The words of the command line: --json FILE, --record."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--record", action="store_true", help=f"append the figures to docs/results/{name}.jsonl")
    return parser.parse_args()


def told(figures: Sequence[Figure], name: str, *, to: Path | None, recorded: bool, raw: Mapping[str, Any]) -> int:
    """Print the table, write the figures where asked; 1 where a bound does not hold, else 0.

    Args:
        figures: of the table.
        name: of the benchmark, and of docs/results/NAME.jsonl.
        to: JSON file for the figures.
        recorded: whether a line is appended to docs/results.
        raw: what else that line holds.
    """
    print(table(figures))
    if recorded:
        lines = [figure.to_json() | {"samples": list(figure.samples)} for figure in figures]
        record(name, {"figures": lines, **raw}, f"benchmarks.{name}")
    if to is not None:
        to.write_text(json.dumps([figure.to_json() for figure in figures], indent=1) + "\n")
    return 0 if all(figure.holds for figure in figures) else 1

"""What a person at the terminal sees while work goes on. Everything here goes to stderr; results go to stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

LINE_SECONDS = 30.0  # between the lines of progress in a log file


def number(count: int, noun: str) -> str:
    """`1 group`, `2 groups`, `1,500 groups`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Progress:
    """A running count of done units. This one says nothing."""

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""

    def update(self, text: str) -> None:
        """Show `text` beside the bar (the loss, say)."""


@contextmanager
def progress(
    description: str, total: int, unit: str = "", *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """A progress bar with count, rate and time left; where stderr is no terminal, a line of them every 30 s at most.

    Args:
        description: what is going on.
        total: units to be done.
        unit: what is counted.
        clock: the time in seconds, from any start.
    """
    if not (sys.stderr.isatty() and first_process()):
        yield _Lines(description, total, unit, clock)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    console = Console(file=sys.stderr)  # this one, also while somebody redirects it
    with Rich(*columns, console=console) as bars:
        yield _Bar(bars, bars.add_task(description, total=total, text="", rate=""), unit)


class _Lines(Progress):
    """Plain lines, for the log of work that nobody watches. Work that is over before the first is due says nothing."""

    def __init__(self, description: str, total: int, unit: str, clock: Callable[[], float]) -> None:
        self._description, self._total, self._unit, self._clock = description, total, unit, clock
        self._done, self._said_at, self._text = 0, clock(), ""
        self._window: tuple[float, int] | None = None  # when the rate's window began, and with how many done

    def advance(self, count: int = 1) -> None:
        now = self._clock()
        self._done += count
        if now - self._said_at >= LINE_SECONDS:
            self._line(now)
            self._window, self._said_at = (now, self._done), now
        # The first count is no work of this process when a run is resumed, so the rate begins behind it.
        self._window = self._window or (now, self._done)

    def update(self, text: str) -> None:
        self._text = text

    def _line(self, now: float) -> None:
        parts = [f"{self._done:,}/{self._total:,}"]
        since, before = self._window or (now, 0)
        if now > since and self._done > before:
            rate = (self._done - before) / (now - since)
            parts += [f"{rate:,.1f} {self._unit}/s", f"{_duration((self._total - self._done) / rate)} left"]
        note(f"{self._description}: {', '.join(filter(None, [*parts, self._text]))}")


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{hours} h"


class _Bar(Progress):
    def __init__(self, bars, task, unit: str) -> None:  # type: ignore[no-untyped-def]  # rich is imported lazily
        self._bars, self._task, self._unit = bars, task, unit

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)
        speed = self._bars.tasks[self._task].speed
        self._bars.update(self._task, rate=f"{speed:,.0f} {self._unit}/s" if speed else "")

    def update(self, text: str) -> None:
        self._bars.update(self._task, text=text)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout: the first column to the left, the others to the right.

    In a pipe no line is cut; on a narrow terminal the first column is folded.

    Args:
        title: what it is about.
        columns: their heads.
        rows: each a cell per column.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells = [list(columns), *map(list, rows)]
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=number > 0, overflow="fold")
    for row in cells[1:]:
        table.add_row(*row)
    width = max(len(title), sum(max(map(len, column)) + 3 for column in zip(*cells, strict=True)))
    console = Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False)
    console.print(title, style="bold")
    console.print(table)


def note(text: str) -> None:
    """One line of information on stderr; of several processes the first one says it."""
    if first_process():
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """One line of warning on stderr; each of several processes says what it has met."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher started (RANK)."""
    return os.environ.get("RANK", "0") == "0"

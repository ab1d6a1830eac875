"""What a person at the terminal sees while work goes on. Everything here goes to stderr; results go to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """A running count of done units; silent where stderr is not a terminal."""

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""

    def update(self, text: str) -> None:
        """Show `text` beside the bar (the loss, say)."""


@contextmanager
def progress(description: str, total: int, unit: str = "") -> Iterator[Progress]:
    """A progress bar with count, rate and time left. Silent where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield Progress()
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
    with Rich(*columns, console=Console(stderr=True)) as bars:
        yield _Bar(bars, bars.add_task(description, total=total, text="", rate=""), unit)


class _Bar(Progress):
    def __init__(self, bars, task, unit: str) -> None:  # type: ignore[no-untyped-def]  # rich is imported lazily
        self._bars, self._task, self._unit = bars, task, unit

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)
        speed = self._bars.tasks[self._task].speed
        self._bars.update(self._task, rate=f"{speed:,.0f} {self._unit}/s" if speed else "")

    def update(self, text: str) -> None:
        self._bars.update(self._task, text=text)


def note(text: str) -> None:
    """One line of information on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """One line of warning on stderr."""
    print(f"warning: {text}", file=sys.stderr, flush=True)

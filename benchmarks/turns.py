"""Trainings by turns, each in a process of its own: an epoch of one, an epoch of the next, and so on.

So what is compared lies seconds apart, not minutes, and no training is begun more than once.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import psutil

Gate = Callable[[], None]  # called at the begin of every epoch: returns when it is this training's turn


class _Standing:
    """A training that stands still at the begin of an epoch."""

    def __init__(self, train: Callable[[Gate], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_run, args=(train, other))
        self._process.start()
        other.close()

    def stands(self) -> float:
        """Wait for it; the CPU time that it has used so far, seconds."""
        told = self._pipe.recv()
        if isinstance(told, str):
            raise RuntimeError(told)
        return float(told)

    def epoch(self) -> float:
        """Let it go on for an epoch; the CPU time of that, seconds."""
        self._pipe.send(True)
        begun = self.stands()
        return self.stands() - begun

    def end(self) -> None:
        """It goes no further."""
        self._pipe.close()
        self._process.join()


def cpu_seconds_by_turns(
    trainings: Mapping[str, Callable[[Gate], Any]], rounds: int, *, between: Callable[[], None] | None = None
) -> list[dict[str, float]]:
    """CPU time of an epoch of each, worker processes included, once a round; the first epoch of each is not counted.

    Args:
        trainings: of more than `rounds` + 1 epochs each, at whose begin they call what they are given. Picklable.
        rounds: how many.
        between: called after every round.
    """
    standing = {name: _Standing(train) for name, train in trainings.items()}
    try:
        for one in standing.values():
            one.stands()
        for one in standing.values():
            one.epoch()
        found = []
        for _ in range(rounds):
            found.append({name: one.epoch() for name, one in standing.items()})
            if between is not None:
                between()
        return found
    finally:
        for one in standing.values():
            one.end()


def _run(train: Callable[[Gate], Any], pipe: Connection) -> None:
    import torch

    from buttress.memory import keep_freed_memory

    def gate() -> None:
        pipe.send(_cpu_seconds())
        try:
            pipe.recv()
        except EOFError:
            raise SystemExit(0) from None
        pipe.send(_cpu_seconds())

    torch.set_num_threads(1)
    keep_freed_memory()  # as commands do; of trainings beside ours too
    try:
        train(gate)
        pipe.send("a training ended before its last turn")
    except Exception:
        pipe.send(traceback.format_exc())


def _cpu_seconds() -> float:
    """Of this process and of those that it has started, which live as long as it does."""
    children = (child.cpu_times() for child in psutil.Process().children())
    return time.process_time() + sum(float(times.user + times.system) for times in children)

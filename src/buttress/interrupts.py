"""Ctrl-C is told in one line, by the process that was started; its workers do not answer it and end with it."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

_deaf: list[bool] = []  # one entry for each `deaf_children` that is open


@contextmanager
def deaf_children() -> Iterator[None]:
    """Let processes that are forked meanwhile ignore Ctrl-C: those of torch's loaders, which no one else can reach."""
    _register()
    _deaf.append(True)
    try:
        yield
    finally:
        _deaf.pop()


@functools.cache
def _register() -> None:
    """Once: there is no way to take it back."""
    os.register_at_fork(after_in_child=_ignore_interrupts)


def _ignore_interrupts() -> None:
    if _deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back; processes spawned meanwhile never see it, from their first moment on.

    A terminal sends it to all processes at once. Ours is delivered when the context ends; a child keeps the mask that
    it was born with.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # or starting it among the others would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

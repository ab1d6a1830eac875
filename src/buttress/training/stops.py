"""What ends a training early: a request to terminate, and memory that does not suffice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch

from buttress.errors import ButtressError, TrainingError


class TrainingStoppedError(ButtressError):
    """A training saved its state and ended because it was asked to (SIGTERM)."""

    exit_code = 143  # 128 + SIGTERM, what schedulers expect of a job that they ended


@dataclass(slots=True)
class Termination:
    """Whether the process was asked to end."""

    asked: bool = False


@contextmanager
def termination() -> Iterator[Termination]:
    """SIGTERM is noted once and no longer ends the process; a second one does. In the main thread only."""
    state = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def noted(number: int, frame: FrameType | None) -> None:
        state.asked = True
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, noted)
    try:
        yield state
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def memory_advice(step: int, images: int) -> Iterator[None]:
    """Say which setting to lower where `images` at once are too many for the memory.

    Raises:
        TrainingError: out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as failure:
        text = str(failure)
        short = isinstance(failure, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text
        if not short:
            raise
        less = f"set --engine.micro_batch {images // 2} (the update stays one of --batch images), or "
        raise TrainingError(
            f"step {step}: out of memory with {images} images at once; {less if images > 1 else ''}lower --size"
        ) from failure

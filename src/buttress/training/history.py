"""What happened in a training: losses of updates, figures of epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from buttress.errors import TrainingError
from buttress.metrics.intervals import Figure

SHOWN_IDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """One epoch: its number from 1, updates so far, mean loss, last learning rate, seconds, figures on the val data."""

    epoch: int
    step: int
    loss: float
    lr: float
    seconds: float
    val: dict[str, Figure] | None


@dataclass(slots=True)
class History:
    """What happened: every epoch, also those before a resume; the loss of every update since this start."""

    epochs: list[EpochResult] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)

    def top1(self) -> float | None:
        """Of the last epoch that was scored, 0..1."""
        scored = [epoch.val["top1"]["value"] for epoch in self.epochs if epoch.val is not None]
        return scored[-1] if scored else None


@dataclass(slots=True)
class StepLoss:
    """Of one update, 0-d on the device: the loss over all processes, this one's, and whether one is to end."""

    loss: Tensor
    own: Tensor
    asked_to_end: Tensor | None


class EpochLosses:
    """Losses of an epoch, each read one step late, so that the host never waits for the device."""

    def __init__(self, known: list[float], before: float) -> None:
        self.values, self.asked_to_end = list(known), False
        self._before = before
        self._pending: tuple[StepLoss, int, tuple[str, ...]] | None = None

    @property
    def last(self) -> float:
        """The newest that is known, from the epoch before where this one has none yet."""
        return self.values[-1] if self.values else self._before

    def add(self, told: StepLoss, step: int, ids: tuple[str, ...]) -> None:
        self.read()
        self._pending = (told, step, ids)

    def mean(self, epoch: int) -> float:
        """Mean over the epoch's updates."""
        self.read()
        if not self.values:
            raise TrainingError(f"epoch {epoch + 1}: no image could be read; look at the warnings above")
        return math.fsum(self.values) / len(self.values)

    def read(self) -> list[float]:
        """All of them; waits for the newest."""
        if self._pending is not None:
            told, step, ids = self._pending
            self._pending = None
            value = told.loss.item()
            if not math.isfinite(value):
                raise TrainingError(_not_finite(step, value, told.own.item(), ids))
            self.asked_to_end = told.asked_to_end is not None and told.asked_to_end.item() > 0
            self.values.append(value)
        return self.values


def _not_finite(step: int, value: float, own: float, ids: tuple[str, ...]) -> str:
    if math.isfinite(own):
        return f"step {step}: the loss is {value} in another process, which names the images"
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return f"step {step}: the loss is {own} on {', '.join(ids[:SHOWN_IDS])}{more}; lower --lr, or look at these images"

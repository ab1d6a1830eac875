"""Batch statistics of several levels, kept with the weights: those of one level are wrong at another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from buttress.errors import SettingsError
from buttress.weights.batch_norm import batch_norms, reestimate_batch_norm
from buttress.weights.levels import Level, Levelled, Point, levelled, require_between
from buttress.weights.settings import LevelKind

CHILD = "level_statistics"  # the name of the child of a batch norm
SAME = 1e-6


class LevelStatistics(nn.Module, Levelled):
    """A batch norm's statistics at each of some points of a level: a child of the batch norm, which it fills.

    Args:
        kind: of the level.
        points: P of them.
        features: C, of the batch norm.
        between: points of one number also between two stored ones, where the statistics are blended along the
            logarithm; else a point that is not stored is refused.
    """

    means_PC: Tensor
    variances_PC: Tensor

    def __init__(self, kind: LevelKind, points: Sequence[Point], features: int, *, between: bool = False) -> None:
        super().__init__()
        self.level_kind, self.points, self.between = kind, tuple(points), between
        self.register_buffer("means_PC", torch.zeros(len(points), features))
        self.register_buffer("variances_PC", torch.ones(len(points), features))

    def keep(self, number: int, owner: nn.Module) -> None:
        """Take the batch norm's own for those of a point."""
        for held_PC, own_C in ((self.means_PC, owner.running_mean), (self.variances_PC, owner.running_var)):
            assert isinstance(own_C, Tensor)
            held_PC[number].copy_(own_C)

    def require(self, point: Point) -> None:
        self._shares(point)

    def set_level(self, point: Point, owner: nn.Module) -> None:
        shares_P = torch.tensor(self._shares(point), dtype=self.means_PC.dtype, device=self.means_PC.device)
        for held_PC, own_C in ((self.means_PC, owner.running_mean), (self.variances_PC, owner.running_var)):
            assert isinstance(own_C, Tensor)
            own_C.copy_(shares_P @ held_PC)

    def _shares(self, point: Point) -> list[float]:
        """How much of each stored point's statistics is taken."""
        for number, known in enumerate(self.points):
            if len(known) == len(point) and max(abs(a - b) for a, b in zip(known, point, strict=True)) < SAME:
                return [float(number == each) for each in range(len(self.points))]
        if self.between:
            (x,) = point
            low = max((known for known in self.points if known[0] < x), default=None)
            high = min((known for known in self.points if known[0] > x), default=None)
            if low is not None and high is not None:
                share = math.log(x / low[0]) / math.log(high[0] / low[0])
                return [{low: 1 - share, high: share}.get(known, 0.0) for known in self.points]
        level = Level(self.level_kind, (point,))
        if len(point) == 1:
            require_between(level, min(self.points)[0], max(self.points)[0])
        names = ", ".join(str(Level(self.level_kind, (each,))).partition("=")[2] for each in sorted(self.points))
        raise SettingsError(f"level {level}: batch statistics are kept at {names} alone; choose one")


def attach_statistics(model: nn.Module, kind: LevelKind, points: Sequence[Point], *, between: bool = False) -> None:
    """Give every batch norm a place for its statistics at each point."""
    for norm in batch_norms(model):
        assert norm.running_mean is not None
        held = LevelStatistics(kind, points, len(norm.running_mean), between=between)
        norm.add_module(CHILD, held.to(norm.running_mean.device))


def keep_statistics(model: nn.Module, images: Iterable[Tensor], place: Callable[[Point], object]) -> None:
    """Re-estimate the statistics at each point and keep them.

    images: batches as the model takes them; they are read once for each point.
    place: moves the weights to a point.
    """
    norms = batch_norms(model)
    held = [getattr(norm, CHILD) for norm in norms]
    for number, point in enumerate(held[0].points if held else ()):
        place(point)
        reestimate_batch_norm(model, images)
        for norm, each in zip(norms, held, strict=True):
            each.keep(number, norm)


def place_weights(model: nn.Module, level: Level) -> None:
    """Move everything but the statistics to a level, for these are about to be taken there."""
    for owner, part in levelled(model, level.kind):
        if not isinstance(part, LevelStatistics):
            part.set_level(level.points[0], owner)


def drop_statistics(model: nn.Module) -> None:
    """Leave plain batch norms with the statistics that they have."""
    for norm in batch_norms(model):
        delattr(norm, CHILD)


def is_statistic(name: str) -> bool:
    """Whether an entry of a state dict is one of these."""
    return f".{CHILD}." in f".{name}"

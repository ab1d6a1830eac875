"""What the kinds of LCS share: the line between two ends, and which layers are compressed (arXiv 2110.04252)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from buttress.weights.interpolation import Interpolated
from buttress.weights.levels import Level, Point, require_between
from buttress.weights.settings import LevelKind
from buttress.weights.sites import Site, classifier_of, sites

Start = Callable[[Tensor], Tensor]  # the plain end of a line -> where the other end begins


class Line(Interpolated):
    """A line whose place follows from a level of compression: the plain parameter is its hard end.

    Args:
        other: the easy end.
        level_kind: of the level.
        low, high: what levels it takes; it stands at `high`.
        start, stop: the levels, or what would be levels, at which it is at its ends.
    """

    def __init__(
        self, other: Tensor, level_kind: LevelKind, low: float, high: float, *, start: float, stop: float
    ) -> None:
        self.low, self.high, self.start, self.stop = low, high, start, stop
        super().__init__([other], "line", (self.along(high),), level_kind=level_kind)

    def along(self, level: float) -> float:
        """The place, 0..1, of a level; 1 where there is but one level."""
        return (level - self.start) / (self.stop - self.start) if self.stop > self.start else 1.0

    def require(self, point: Point) -> None:
        require_between(Level(self.level_kind, (point,)), self.low, self.high)

    def set_level(self, point: Point, owner: nn.Module) -> None:
        self.require(point)
        self.place((self.along(point[0]),))


def inner_weights(model: nn.Module) -> list[Site]:
    """Weights of all layers but the first convolution (the first layer, where there is none) and the classifier."""
    layers = sites(model, "conv", "linear", tensors=("weight",))
    first = next((site.module for site in layers if site.kind == "conv"), layers[0].module if layers else None)
    return [site for site in layers if site.module not in (first, classifier_of(model))]


def bake_all(model: nn.Module) -> None:
    """Remove all parametrizations and leave their values."""
    for site in sites(model):
        if parametrize.is_parametrized(site.module, site.tensor):
            site.bake()


def uniform(low: float, high: float, generator: Generator) -> float:
    """A number drawn evenly between two."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def towards_the_ends(low: float, high: float, generator: Generator) -> float:
    """`low` or `high` for a quarter of the draws each, else a number drawn evenly between them."""
    place, even = uniform(0, 1, generator), uniform(low, high, generator)
    return low if place < 0.25 else high if place < 0.5 else even


def dense_share(step: int, total_steps: int, warmup: float) -> float:
    """1 at the first step, falling evenly to 0 where the share `warmup` of all steps is done."""
    return max(0.0, 1 - step / (warmup * total_steps)) if warmup > 0 else 0.0

"""Neural network subspaces: a line, curve or simplex of models from one training (arXiv 2102.10472)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import torch
from torch import Generator, Tensor, nn

from buttress.models.packed import Entry, Plain
from buttress.weights.batch_norm import reestimate_batch_norm
from buttress.weights.interpolation import (
    Chunk,
    Interpolated,
    blend,
    blend_together,
    chunked,
    corner_like,
    corner_lists,
    place_together,
    squared_cosine,
)
from buttress.weights.levels import Level, Point, levelled, move
from buttress.weights.settings import SubspaceSettings
from buttress.weights.sites import CacheKey, Site, give, plain_state, require_plain, sites
from buttress.weights.statistics import attach_statistics, drop_statistics, is_statistic, keep_statistics

ALONG = (0.5, 0.0, 0.25, 0.75, 1.0)  # stored points of a line or curve


class Subspace:
    """Every convolution, linear layer and norm is a blend of corners; each step trains them at a point drawn at random.

    The first corner is the plain model. Batch statistics are not blended: they are re-estimated at a fixed list of
    points when the training ends (at the midpoint before each scoring), and kept with the weights.

    Args:
        settings: what the family is.
        pretrained: the corners begin near the model's weights, which are trained.
    """

    name = "subspace"

    def __init__(self, settings: SubspaceSettings, *, pretrained: bool = False) -> None:
        self.settings, self.pretrained = settings, pretrained
        self._layers: list[list[Interpolated]] = []
        self._sites: list[Site] = []
        self._corners_CT: list[list[nn.Parameter]] = []  # of every site
        self._pulled = frozenset[int]()  # places of the sites that the regulariser is of
        self._chunks: tuple[Chunk, ...] = ()  # of all places
        # Places of those that more than the blend follows.
        self._laters: list[tuple[int, list[nn.Module]]] | None = None
        self._keys: list[CacheKey] = []  # of every site
        self._point: Point | None = None  # of the whole network in this step
        self._pull: Tensor | None = None  # the regulariser of this pass, where it came with the blends
        self._pair = (0, 1)

    @property
    def midpoint(self) -> Point:
        """The middle of the family: 0.5 of a line or curve, equal weights of a simplex."""
        if self.settings.kind != "simplex":
            return (0.5,)
        return (1 / self.settings.corners,) * (self.settings.corners - 1)

    @property
    def points(self) -> tuple[Point, ...]:
        """Those whose batch statistics are kept, the midpoint first."""
        if self.settings.kind != "simplex":
            return tuple((a,) for a in ALONG)
        free = self.settings.corners - 1
        return (self.midpoint, (0.0,) * free, *(tuple(float(i == k) for i in range(free)) for k in range(free)))

    def levels(self) -> tuple[Level, ...]:
        return tuple(Level("at", (point,)) for point in self.points)

    def attach(self, model: nn.Module) -> None:
        self._register(model, lambda first: first.detach().clone())

    def prepare(self, model: nn.Module) -> None:
        self._register(model, lambda first: corner_like(first, pretrained=self.pretrained))

    def before_step(self, step: int, total_steps: int, generator: Generator) -> None:
        if self.settings.draw == "network":
            self._point = self._drawn(generator)
            place_together(self._movable(), self._point)
        else:
            for layer in self._layers:
                place_together(layer, self._drawn(generator))
        if self.settings.count > 2:
            pairs = list(combinations(range(self.settings.count), 2))
            self._pair = pairs[int(torch.randint(len(pairs), (), generator=generator))]

    def passes(self, step: int) -> Sequence[Callable[[], object]]:
        return (self._blend,)

    def _blend(self) -> None:
        """All tensors at once, where they stand at one point."""
        self._pull = None
        if self._point is None:
            return
        coefficients = blend(self.settings.kind, self._point)
        beta = self.settings.beta
        self._pull, values = blend_together(coefficients, self._corners_CT, self._pair, self._chunks, beta)
        if self._laters is None:
            laters = ((place, list(site.parametrizations)[1:]) for place, site in enumerate(self._sites))
            self._laters = [(place, each) for place, each in laters if each]
            self._keys = [site.key for site in self._sites]
        given = list(values)
        for place, later in self._laters:
            for parametrization in later:
                given[place] = parametrization(given[place])
        give(zip(self._keys, given, strict=True))

    def auxiliary_loss(self, model: nn.Module) -> Tensor | None:
        if self.settings.beta == 0:
            return None
        pull, self._pull = self._pull, None
        if pull is not None:
            return pull
        ones, others = ([self._corners_CT[number][place] for place in sorted(self._pulled)] for number in self._pair)
        return self.settings.beta * squared_cosine(ones, others)

    def before_evaluation(self, model: nn.Module, images: Iterable[Tensor], *, last: bool) -> None:
        if last:
            keep_statistics(model, images, lambda point: _place(model, point))
            move(model, Level("at", (self.midpoint,)))
        else:
            _place(model, self.midpoint)
            reestimate_batch_norm(model, images)

    def materialise(self, model: nn.Module) -> None:
        for site in sites(model):
            site.bake()
        drop_statistics(model)

    def packed(self, model: nn.Module) -> dict[str, Entry]:
        state = plain_state(model)
        return {name: Plain(value) for name, value in state.items() if not is_statistic(name)}

    def _register(self, model: nn.Module, start: Callable[[Tensor], Tensor]) -> None:
        acted_on = sites(model)
        require_plain(model, acted_on, self.name)
        layers: dict[int, list[Interpolated]] = {}
        for site in acted_on:
            others = [start(site.parameter) for _ in range(self.settings.count - 1)]
            blended = Interpolated(others, self.settings.kind, self.midpoint)
            site.register(blended)
            layers.setdefault(id(site.module), []).append(blended)
        self._layers, self._sites = list(layers.values()), acted_on
        if self.settings.draw == "network":  # one number then moves them all, until a device has its own copies
            shared = self._layers[0][0].coefficients
            for layer in self._layers:
                for blended in layer:
                    blended.coefficients = shared
        self._corners_CT = corner_lists(acted_on)
        self._pulled = frozenset(
            place for place, site in enumerate(acted_on) if site.kind != "norm" and site.tensor == "weight"
        )
        self._chunks = chunked(self._corners_CT[0], self._pulled if self.settings.beta else ())
        self._laters = None
        attach_statistics(model, "at", self.points)

    def _movable(self) -> list[Interpolated]:
        """Those to move for all to have moved: one while all share their coefficients."""
        first, *others = (blended for layer in (self._layers[0], self._layers[-1]) for blended in layer)
        if others[-1].coefficients is first.coefficients:
            return [first]
        return [blended for layer in self._layers for blended in layer]

    def _drawn(self, generator: Generator) -> Point:
        """A point drawn evenly."""
        if self.settings.kind != "simplex":
            return (float(torch.rand((), generator=generator)),)
        draws = torch.empty(self.settings.corners, dtype=torch.float64).exponential_(generator=generator)
        return tuple((draws / draws.sum())[1:].tolist())


def _place(model: nn.Module, point: Point) -> None:
    for _, part in levelled(model, "at"):
        if isinstance(part, Interpolated):
            part.place(point)

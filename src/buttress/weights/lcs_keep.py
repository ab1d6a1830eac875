"""LCS by unstructured sparsity: the share of weights that are not zero is chosen at run time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from buttress.weights.batch_norm import reestimate_batch_norm
from buttress.weights.interpolation import corner_lists, place_together, squared_cosine
from buttress.weights.lcs_line import Line, Start, bake_all, dense_share, inner_weights, towards_the_ends, uniform
from buttress.weights.levels import Level, Point
from buttress.weights.masks import TopK
from buttress.weights.norms import without_statistics
from buttress.weights.settings import LcsSettings
from buttress.weights.sites import require_plain, sites
from buttress.weights.statistics import attach_statistics, drop_statistics, keep_statistics, place_weights

SHOWN = (0.5, 0.25, 0.1)
STORED = 8  # steps along the levels between which batch statistics are blended


class Keep:
    """Weights of all layers but the first convolution and the classifier lose their smallest magnitudes.

    point: dense for the first `warmup` of the steps, then sparse by a share drawn in each step (`draw`). line: the
    place on the line is the share; it is drawn with a bias to the ends from the first step on, and the weights there
    become as sparse as that while `warmup` lasts. All weights, biases and norms lie on the line. target: one share; it
    is reached at the end of `warmup`, and batch norms stay.
    """

    def __init__(self, settings: LcsSettings, size: int | None = None) -> None:
        self.settings, self.low, self.high = settings, *settings.span
        self._masks: list[TopK] = []
        self._lines: list[Line] = []

    def levels(self) -> tuple[float, ...]:
        if self.settings.kind == "target":
            return ()
        return tuple(sorted({self.high, self.low, *(k for k in SHOWN if self.low < k < self.high)}, reverse=True))

    def attach(self, model: nn.Module, start: Start) -> None:
        sparse = inner_weights(model)
        require_plain(model, sparse, "lcs")
        on_line = self.settings.kind == "line"
        if on_line:
            require_plain(model, sites(model), "lcs")
        target = self.settings.kind == "target"
        if not target and self.settings.norm == "group":
            without_statistics(model, "group")
        elif not target:
            attach_statistics(model, "keep", self._stored(), between=True)
        self._lines = []
        for site in sites(model) if on_line else []:
            line = Line(start(site.parameter), "keep", self.low, self.high, start=0.0, stop=1.0)
            site.register(line)
            self._lines.append(line)
        high = self.low if target else self.high
        self._masks = [TopK(high, self.low, high) for _ in sparse]
        for site, mask in zip(sparse, self._masks, strict=True):
            site.register(mask)

    def before_step(self, step: int, total_steps: int, generator: Generator) -> None:
        dense = dense_share(step, total_steps, self.settings.warmup)
        if self.settings.kind == "point":
            share = self._drawn(generator)
            self._place(1.0 if dense > 0 else share)
            return
        if self.settings.kind == "target":
            share = self.low
        else:
            share = towards_the_ends(self.low, self.high, generator)
            if self._lines:
                place_together(self._lines, (share,))
        self._place(share + (1 - share) * dense)

    def _drawn(self, generator: Generator) -> float:
        if self.settings.draw == "uniform":
            return uniform(self.low, self.high, generator)
        return math.exp(uniform(math.log(self.low), math.log(self.high), generator))

    def passes(self) -> Sequence[Callable[[], object]]:
        return (lambda: None,)

    def pull(self, model: nn.Module) -> Tensor | None:
        return squared_cosine(*corner_lists(sites(model, "conv", "linear", tensors=("weight",))))

    def before_evaluation(self, model: nn.Module, images: Iterable[Tensor], *, last: bool) -> None:
        kept = self.settings.kind != "target" and self.settings.norm == "batch"
        if last and kept:
            keep_statistics(model, images, lambda point: place_weights(model, Level("keep", (point,))))
        elif kept or self.settings.kind == "target":
            reestimate_batch_norm(model, images)

    def _stored(self) -> list[Point]:
        """Where batch statistics are kept: evenly along the logarithm, and at the levels that are shown."""
        along = [self.low * (self.high / self.low) ** (step / STORED) for step in range(1, STORED)]
        return [(share,) for share in sorted({*along, *self.levels()})]

    def materialise(self, model: nn.Module) -> None:
        bake_all(model)
        if self.settings.kind != "target" and self.settings.norm == "batch":
            drop_statistics(model)

    def encodings(self, model: nn.Module) -> dict[str, tuple[float, ...]]:
        masked = (site for site in inner_weights(model) if parametrize.is_parametrized(site.module, site.tensor))
        return {site.full_name: () for site in masked}

    def _place(self, keep: float) -> None:
        for mask in self._masks:
            mask.keep = keep

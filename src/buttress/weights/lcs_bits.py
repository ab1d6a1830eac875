"""LCS by quantisation: how many bits weights and layer inputs have is chosen at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from buttress.weights.batch_norm import reestimate_batch_norm
from buttress.weights.interpolation import corner_lists, squared_cosine
from buttress.weights.lcs_line import Line, Start, bake_all, dense_share, inner_weights
from buttress.weights.levels import Level
from buttress.weights.norms import without_statistics
from buttress.weights.quantise import QuantisedInput, QuantisedWeight, make_inputs_constant, quantise_input
from buttress.weights.settings import LcsSettings
from buttress.weights.sites import Site, require_plain, sites
from buttress.weights.statistics import attach_statistics, drop_statistics, keep_statistics, place_weights


class Bits:
    """Weights and inputs of all layers but the first convolution and the classifier are quantised, one scale a tensor.

    Weights are so from the first step on, inputs in training once `warmup` is over. point: at the highest bits until
    then, afterwards each layer's are drawn in each step. line: the network's bits are drawn in each step; of n of them
    the k-th lowest is k/n of the way along the line, on which all weights, biases and norms lie.
    """

    def __init__(self, settings: LcsSettings, size: int | None = None) -> None:
        self.settings, self.low, self.high = settings, *map(int, settings.span)
        self._layers: list[tuple[QuantisedWeight, QuantisedInput]] = []
        self._lines: list[Line] = []

    def levels(self) -> tuple[float, ...]:
        return tuple(map(float, range(self.high, self.low - 1, -1)))

    def attach(self, model: nn.Module, start: Start) -> None:
        quantised = inner_weights(model)
        require_plain(model, quantised, "lcs")
        on_line = self.settings.kind == "line"
        if on_line:
            require_plain(model, sites(model), "lcs")
        if self.settings.norm == "group":
            without_statistics(model, "group")
        else:
            attach_statistics(model, "bits", [(bits,) for bits in self.levels()])
        self._layers, self._lines = [], []
        for site in sites(model) if on_line else []:
            line = Line(start(site.parameter), "bits", self.low, self.high, start=self.low - 1, stop=self.high)
            site.register(line)
            self._lines.append(line)
        self._layers = [self._quantise(site) for site in quantised]

    def _quantise(self, site: Site) -> tuple[QuantisedWeight, QuantisedInput]:
        weight = QuantisedWeight(self.high, self.low, self.high)
        given = QuantisedInput(self.high, self.low, self.high, site.parameter.device)
        site.register(weight.train(site.module.training))
        quantise_input(site.module, given.train(site.module.training))
        return weight, given

    def before_step(self, step: int, total_steps: int, generator: Generator) -> None:
        active = dense_share(step, total_steps, self.settings.warmup) == 0
        whole = self._drawn(generator)
        for line in self._lines:
            line.place((line.along(whole),))
        for weight, given in self._layers:
            given.fold()
            given.active = active
            if self.settings.kind == "line":
                weight.bits = given.bits = whole
            else:
                weight.bits = given.bits = self._drawn(generator) if active else self.high

    def passes(self) -> Sequence[Callable[[], object]]:
        return (lambda: None,)

    def pull(self, model: nn.Module) -> Tensor | None:
        return squared_cosine(*corner_lists(sites(model, "conv", "linear", tensors=("weight",))))

    def before_evaluation(self, model: nn.Module, images: Iterable[Tensor], *, last: bool) -> None:
        for module in model.modules():
            if isinstance(module, QuantisedInput):
                module.fold()

        if self.settings.norm == "batch" and last:
            keep_statistics(model, images, lambda point: place_weights(model, Level("bits", (point,))))
        elif self.settings.norm == "batch":
            reestimate_batch_norm(model, images)

    def materialise(self, model: nn.Module) -> None:
        bake_all(model)
        if self.settings.norm == "batch":
            drop_statistics(model)
        make_inputs_constant(model)

    @torch.no_grad()
    def encodings(self, model: nn.Module) -> dict[str, tuple[float, ...]]:
        told: dict[str, tuple[float, ...]] = {}
        for site in inner_weights(model):
            if not parametrize.is_parametrized(site.module, site.tensor):
                continue
            *before, last = cast(Any, site.module).parametrizations[site.tensor]
            weight: Tensor = site.parameter
            for each in before:
                weight = each(weight)
            grid = last.grid(weight)
            zero_point = -(2 ** (last.bits - 1)) - int(grid.lowest)
            told[site.full_name] = (last.bits, float(grid.scale), zero_point)
        return told

    def _drawn(self, generator: Generator) -> int:
        return int(torch.randint(self.low, self.high + 1, (), generator=generator))

"""LCS by structure: the share of channels is chosen at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import Generator, Tensor, nn

from buttress.weights.interpolation import corner_lists, squared_cosine
from buttress.weights.lcs_line import Line, Start, bake_all, uniform
from buttress.weights.norms import without_statistics
from buttress.weights.settings import LcsSettings
from buttress.weights.sites import classifier_of, require_plain, sites
from buttress.weights.slimming import Slim, cut, inputs_of, make_slim

SHOWN = (0.75, 0.5, 0.375)


class Width:
    """Convolutions, linear layers and norms use the first of their channels; image and logits are whole.

    Each step sums the losses of four widths: the lowest, the highest and two drawn evenly. Of a line only the weights
    and biases of norms have two ends; which place on it a width has goes from 0 at the lowest to 1 at the highest.
    """

    def __init__(self, settings: LcsSettings, size: int | None = None) -> None:
        self.settings, self.low, self.high, self.size = settings, *settings.span, size
        self._slim: list[Slim] = []
        self._lines: list[Line] = []
        self._widths: tuple[float, ...] = (self.high,)

    def levels(self) -> tuple[float, ...]:
        return tuple(sorted({self.high, self.low, *(f for f in SHOWN if self.low < f < self.high)}, reverse=True))

    def attach(self, model: nn.Module, start: Start) -> None:
        classifier = classifier_of(model)
        layers = sites(model, "conv", "linear")
        require_plain(model, layers if any(site.module is not classifier for site in layers) else [], "lcs")
        on_line = self.settings.kind == "line"
        if on_line:
            require_plain(model, sites(model, "norm"), "lcs", nothing="has no norms that could lie on a line")
        self._slim, self._lines = make_slim(model, classifier, self.low, self.high), []
        without_statistics(model, "instance")
        for site in sites(model, "norm") if on_line else []:
            line = Line(start(site.parameter), "width", self.low, self.high, start=self.low, stop=self.high)
            site.register(line)
            self._lines.append(line)
        self._place(self.low)
        inputs_of(model, self.size)
        self._place(self.high)

    def before_step(self, step: int, total_steps: int, generator: Generator) -> None:
        drawn = (uniform(self.low, self.high, generator) for _ in range(2))
        self._widths = (self.low, self.high, *drawn)

    def passes(self) -> Sequence[Callable[[], object]]:
        return [partial(self._place, width) for width in self._widths]

    def pull(self, model: nn.Module) -> Tensor | None:
        return squared_cosine(*corner_lists(sites(model, "norm", tensors=("weight",))))

    def before_evaluation(self, model: nn.Module, images: Iterable[Tensor], *, last: bool) -> None:
        pass

    def materialise(self, model: nn.Module) -> None:
        bake_all(model)
        cut(model, self.size)

    def encodings(self, model: nn.Module) -> dict[str, tuple[float, ...]]:
        return {}

    def _place(self, width: float) -> None:
        for layer in self._slim:
            layer.width = width
        for line in self._lines:
            line.place((line.along(width),))

"""The exponential moving average of a model's state, by timm's ModelEmaV3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]  # timm re-exports without saying so
from torch import Tensor, nn


class Ema:
    """A moving average that follows a module, and can take its place for a while.

    It averages parameters and the floating-point buffers that the plain model has (batch statistics). Buffers that a
    method has added, masks and centroids, are taken over as they are: an average of masks is no mask.

    Args:
        module: prepared by the methods, on its device.
        plain_buffers: names of the buffers before any method.
        decay: 0..1. In the first updates it is smaller, 1 - (1 + n)^(-3/4) after n: what the weights were drawn as
            fades soon (timm's warm-up, of the power that it advises for short trainings).
    """

    def __init__(self, module: nn.Module, plain_buffers: frozenset[str], decay: float) -> None:
        self._module = module
        self._ema = ModelEmaV3(module, decay=decay, use_warmup=True, warmup_power=3 / 4)
        parameters = {name for name, _ in module.named_parameters()}
        self._copied = [name for name in module.state_dict() if name not in parameters and name not in plain_buffers]

    @property
    def shadow(self) -> nn.Module:
        """The module that holds the average."""
        shadow: nn.Module = self._ema.module
        return shadow

    def update(self, step: int) -> None:
        """After update number `step`, from 0."""
        self._ema.update(self._module, step + 1)
        live, held = self._module.state_dict(), self.shadow.state_dict()
        for name in self._copied:
            held[name].copy_(live[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the average for its state; its own comes back, whatever was done to the average meanwhile."""
        own = {name: value.clone() for name, value in self._module.state_dict().items()}
        self.hand_over()
        try:
            yield
        finally:
            _copy(own, self._module)

    def hand_over(self) -> None:
        """Give the average to the module for good."""
        _copy(self.shadow.state_dict(), self._module)


def _copy(state: dict[str, Tensor], module: nn.Module) -> None:
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(state[name])

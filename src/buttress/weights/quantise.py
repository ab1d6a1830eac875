"""Fake quantisation: weights and layer inputs on the grid of so many bits, in floating point (arXiv 2110.04252)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from buttress.errors import SettingsError
from buttress.weights.levels import Level, Levelled, Point, require_between

INPUT = "input_grid"  # the child of a layer that its input goes through
MOMENTUM = 0.1  # of the running range of a layer's input


class Grid(NamedTuple):
    """Values `i * scale` of whole numbers i from `lowest` to `highest`, all 0-d; zero is one of them.

    A signed integer q of b bits stands for (q - zero point) * scale; then `lowest` is -2^(b-1) - zero point.
    """

    scale: Tensor
    lowest: Tensor
    highest: Tensor

    def snap(self, x: Tensor) -> Tensor:
        """The nearest value of the grid, of the same shape; halves go to the even one."""
        return (x / self.scale).round().clamp(self.lowest, self.highest) * self.scale


def grid_of(range_2: Tensor, bits: int) -> Grid:
    """The grid of 2^bits values over a range, affine and signed; zero alone where the range is empty.

    range_2: lower end, at most 0, and upper end, at least 0.
    """
    low, high = range_2.unbind()
    smallest, largest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = (high - low) / (largest - smallest)
    some = scale > 0
    scale = torch.where(some, scale, 1.0)
    zero_point = (smallest - low / scale).round().clamp(smallest, largest)
    return Grid(scale, torch.where(some, smallest - zero_point, 0.0), torch.where(some, largest - zero_point, 0.0))


def range_of(x: Tensor) -> Tensor:
    """[2]: the smallest and largest value, zero included, float32 at least."""
    ends = torch.stack(x.detach().aminmax())
    zero = ends.new_zeros(())
    ends = torch.stack([torch.minimum(ends[0], zero), torch.maximum(ends[1], zero)])
    return ends.to(torch.promote_types(ends.dtype, torch.float32))


class _Straight(torch.autograd.Function):
    """`Grid.snap` whose gradient is that of the identity, also outside of the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *grid: Tensor) -> Tensor:
        return Grid(*grid).snap(x).add_(0.0)  # no zero has a sign

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None, None, None


def straight_through(x: Tensor, grid: Grid) -> Tensor:
    """`x` on the grid; the gradient passes as if it were not."""
    snapped: Tensor = _Straight.apply(x, *grid)
    return snapped


class Quantised(nn.Module, Levelled):
    """What quantised weights and inputs share. Where they stand, `bits`, is a plain number.

    Args:
        bits: 1..8.
        low, high: what levels it takes.
    """

    level_kind = "bits"

    def __init__(self, bits: int, low: int, high: int) -> None:
        super().__init__()
        self.bits, self.low, self.high = bits, low, high

    def require(self, point: Point) -> None:
        level = Level("bits", (point,))
        require_between(level, self.low, self.high)
        if point[0] != int(point[0]):
            raise SettingsError(f"level {level}: bits are whole numbers")

    def set_level(self, point: Point, owner: nn.Module) -> None:
        self.require(point)
        self.bits = int(point[0])


class QuantisedWeight(Quantised):
    """Parametrization: a weight on the grid of its own range, which is found anew in each forward."""

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight, self.grid(weight))

    def grid(self, weight: Tensor) -> Grid:
        """The grid that `weight` is put on."""
        return grid_of(range_of(weight), self.bits)


class QuantisedInput(Quantised):
    """A layer's input on the grid of its running range: the child of the layer that it goes through.

    In training it acts once `active` is set; in evaluation always, with the running range, once there is one. In
    training the range that is used has taken in the input at hand (momentum 0.1; the first input's range is taken as it
    is). A forward does not move the running range: it only widens `seen`, the range of the step's inputs, so that
    running it again changes nothing, and micro-batches count as one input. `fold` moves the running range, once a step.
    All of it is persistent: a training that goes on from a checkpoint has not lost the last step's `seen`.
    """

    running: Tensor
    started: Tensor
    seen: Tensor
    pending: Tensor

    def __init__(self, bits: int, low: int, high: int, device: torch.device) -> None:
        super().__init__(bits, low, high)
        self.active = False
        for name in ("running", "seen"):
            self.register_buffer(name, torch.zeros(2, device=device))
        for name in ("started", "pending"):
            self.register_buffer(name, torch.zeros((), dtype=torch.bool, device=device))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return straight_through(x, grid_of(self._watch(x), self.bits)) if self.active else x
        return straight_through(x, grid_of(self.running, self.bits)) if bool(self.started) else x

    @torch.no_grad()
    def _watch(self, x: Tensor) -> Tensor:
        own = range_of(x).to(self.seen.dtype)
        self.seen.copy_(torch.stack([torch.minimum(self.seen[0], own[0]), torch.maximum(self.seen[1], own[1])]))
        self.pending.fill_(True)
        return self._moved(own)

    @torch.no_grad()
    def fold(self) -> None:
        """Take in what the last step has seen."""
        self.running.copy_(torch.where(self.pending, self._moved(self.seen), self.running))
        self.started.logical_or_(self.pending)
        self.seen.zero_()
        self.pending.fill_(False)

    def _moved(self, towards_2: Tensor) -> Tensor:
        return torch.where(self.started, torch.lerp(self.running, towards_2, MOMENTUM), towards_2)


class FakeQuantise(nn.Module):
    """A tensor on a grid of constants, by plain arithmetic that exporters know.

    Args:
        grid: what it is; kept in buffers.
    """

    scale: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        for name, value in grid._asdict().items():
            self.register_buffer(name, value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return Grid(self.scale, self.lowest, self.highest).snap(x)


def quantise_input(layer: nn.Module, through: nn.Module) -> None:
    """Let the first argument of `layer` go through a module, which becomes its child."""
    layer.add_module(INPUT, through)
    layer.register_forward_pre_hook(_through)


def make_inputs_constant(model: nn.Module) -> None:
    """Put constants in the place of all `QuantisedInput`s, at the bits where they stand; those without a range go."""
    for layer in list(model.modules()):
        moving = layer._modules.get(INPUT)
        if not isinstance(moving, QuantisedInput):
            continue
        delattr(layer, INPUT)
        if bool(moving.started):
            layer.add_module(INPUT, FakeQuantise(grid_of(moving.running, moving.bits)))
            continue
        for key, hook in list(layer._forward_pre_hooks.items()):
            if hook is _through:
                del layer._forward_pre_hooks[key]


def _through(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (layer.get_submodule(INPUT)(args[0]), *args[1:])

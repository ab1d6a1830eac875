"""A weight as a blend of corners: lines, Bezier curves and simplexes of models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from buttress.errors import SettingsError
from buttress.weights.levels import Level, Levelled, Point, require_between
from buttress.weights.settings import LevelKind, SubspaceKind
from buttress.weights.sites import SiteKind, sites

SPREAD = 0.1  # of a corner beside trained weights: standard deviation of the noise, in those of the tensor


def blend(kind: SubspaceKind, point: Point) -> tuple[float, ...]:
    """The corners' coefficients at a point; they sum to 1 (arXiv 2102.10472).

    kind: line, (1 - a, a); curve, ((1 - a)^2, a^2, 2 a (1 - a)), whose third corner is the bend; simplex, (1 - the sum
        of the others', t_1, t_2, ...).
    point: one number; of a simplex those of all corners but the first.
    """
    if kind == "simplex":
        return (1.0 - sum(point), *point)
    (a,) = point
    return (1 - a, a) if kind == "line" else ((1 - a) ** 2, a * a, 2 * a * (1 - a))


class Interpolated(nn.Module, Levelled):
    """Parametrization: `sum of c_i w_i` over the corners w_i, of which the plain parameter is the first.

    Args:
        others: the other corners, of the first one's shape.
        kind: how a level's point becomes coefficients.
        point: where it stands.
        level_kind: the level that it follows.
    """

    coefficients: Tensor

    def __init__(
        self, others: Sequence[Tensor], kind: SubspaceKind, point: Point, *, level_kind: LevelKind = "at"
    ) -> None:
        super().__init__()
        self.kind, self.level_kind = kind, level_kind
        self.others = nn.ParameterList(nn.Parameter(other) for other in others)
        start = torch.tensor(blend(kind, point), dtype=others[0].dtype, device=others[0].device)
        self.register_buffer("coefficients", start, persistent=False)

    def forward(self, first: Tensor) -> Tensor:
        coefficients = self.coefficients.to(first.dtype).unbind()
        if len(coefficients) == 2:
            return torch.lerp(first, self.others[0], coefficients[1])
        total = coefficients[0] * first
        for coefficient, other in zip(coefficients[1:], self.others, strict=True):
            total = torch.addcmul(total, coefficient, other)
        return total

    def place(self, point: Point) -> None:
        """Stand at a point of the line, curve or simplex."""
        self.coefficients.copy_(_coefficients(self.kind, point))

    def set_level(self, point: Point, owner: nn.Module) -> None:
        level = Level(self.level_kind, (point,))
        wanted = len(self.others) if self.kind == "simplex" else 1
        if len(point) != wanted:
            raise SettingsError(f"level {level}: this model's points have {wanted} numbers, as in {_example(wanted)}")
        require_between(level, 0.0, 1.0)
        if sum(point) > 1 + 1e-6:
            raise SettingsError(f"level {level}: outside the simplex, whose points sum to at most 1")
        self.place(point)


def _example(wanted: int) -> str:
    return str(Level("at", ((1 / (wanted + 1),) * wanted,)))


@lru_cache(maxsize=64)
def _coefficients(kind: SubspaceKind, point: Point) -> Tensor:
    """Kept, for all layers of a step mostly stand at one point."""
    with torch.inference_mode(False):
        return torch.tensor(blend(kind, point), dtype=torch.float64)


def corner_like(first: Tensor, *, pretrained: bool) -> Tensor:
    """Where another corner of `first` begins.

    From scratch it is `first` with its entries in another order: another draw of whatever distribution it was drawn
    from. Beside trained weights it is a copy with noise of a tenth of their standard deviation. Draws come from torch's
    global generator.
    """
    plain = first.detach()
    if not pretrained:
        return plain.flatten()[torch.randperm(plain.numel())].view_as(plain).clone()
    noise = torch.randn_like(plain) * (SPREAD * plain.std(correction=0))
    return plain + noise


def corners(parametrized: ParametrizationList, number: int) -> Tensor:
    """Corner `number` of a tensor whose first parametrization is an Interpolated."""
    blended = parametrized[0]
    assert isinstance(blended, Interpolated)
    return parametrized.original if number == 0 else blended.others[number - 1]


def squared_cosine(
    model: nn.Module, one: int, other: int, kinds: Sequence[SiteKind], tensors: tuple[str, ...] = ("weight",)
) -> Tensor:
    """Squared cosine, 0..1, of the angle between two corners of the network, all tensors of these kinds as one vector.

    arXiv 2102.10472, equation 5: driven to 0 it makes the corners, and what they predict, differ. Gradients flow to
    both.
    """
    pairs = []
    for site in sites(model, *kinds, tensors=tensors):
        parametrized = getattr(site.module, "parametrizations", {})
        if site.tensor not in parametrized or not isinstance(parametrized[site.tensor][0], Interpolated):
            continue
        pairs.append([corners(parametrized[site.tensor], number) for number in (one, other)])
    firsts, seconds = zip(*pairs, strict=True)
    value: Tensor = _SquaredCosine.apply(len(pairs), *firsts, *seconds)
    return value


class _SquaredCosine(torch.autograd.Function):
    """Of two lists of tensors; with p = a.b, its gradient in a is 2 p / (|a|^2 |b|^2) (b - p / |a|^2 a).

    Written out because autograd's own would pass over all weights a dozen times.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *both: Tensor) -> Tensor:
        firsts, seconds = both[:count], both[count:]
        product, first, second = (_dot(x, y) for x, y in ((firsts, seconds), (firsts, firsts), (seconds, seconds)))
        ctx.save_for_backward(product, first, second, *both)
        return product.square() / (first * second)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        product, first, second, *both = ctx.saved_tensors
        count = len(both) // 2
        firsts, seconds = both[:count], both[count:]
        outer = gradient * 2 * product / (first * second)
        to_first = torch._foreach_mul(firsts, -outer * product / first)
        to_second = torch._foreach_mul(seconds, -outer * product / second)
        torch._foreach_add_(to_first, torch._foreach_mul(seconds, outer))
        torch._foreach_add_(to_second, torch._foreach_mul(firsts, outer))
        return None, *to_first, *to_second


def _dot(firsts: Sequence[Tensor], seconds: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.dot(_flat(x), _flat(y)) for x, y in zip(firsts, seconds, strict=True)]).sum()


def _flat(weight: Tensor) -> Tensor:
    """In the order of the memory, so that nothing is copied; two corners of a weight have the same."""
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        weight = weight.permute(0, 2, 3, 1)
    return weight.reshape(-1)

"""A weight as a blend of corners: lines, Bezier curves and simplexes of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

from buttress.errors import SettingsError
from buttress.weights.levels import Level, Levelled, Point, require_between
from buttress.weights.settings import LevelKind, SubspaceKind
from buttress.weights.sites import Site

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
        place_together([self], point)

    def require(self, point: Point) -> None:
        level = Level(self.level_kind, (point,))
        wanted = len(self.others) if self.kind == "simplex" else 1
        if len(point) != wanted:
            raise SettingsError(f"level {level}: this model's points have {wanted} numbers, as in {_example(wanted)}")
        require_between(level, 0.0, 1.0)
        if sum(point) > 1 + 1e-6:
            raise SettingsError(f"level {level}: outside the simplex, whose points sum to at most 1")

    def set_level(self, point: Point, owner: nn.Module) -> None:
        self.require(point)
        self.place(point)


def place_together(blended: Sequence[Interpolated], point: Point) -> None:
    """Let blends of one kind stand at one point; some of them may share their coefficients."""
    coefficients = torch.tensor(blend(blended[0].kind, point), dtype=torch.float64)
    for told in {id(each.coefficients): each.coefficients for each in blended}.values():
        told.copy_(coefficients)


def _example(wanted: int) -> str:
    return str(Level("at", ((1 / (wanted + 1),) * wanted,)))


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


def corner_lists(acted_on: Iterable[Site]) -> list[list[nn.Parameter]]:
    """For each corner the tensors that are blended, those of `acted_on` that are blends, in its order."""
    found = (site.parametrizations for site in acted_on if parametrize.is_parametrized(site.module, site.tensor))
    blended = [[each.original, *each[0].others] for each in found if isinstance(each[0], Interpolated)]
    return [list(tensors) for tensors in zip(*blended, strict=True)]


def blend_together(
    coefficients: Sequence[float], corners_CT: Sequence[Sequence[Tensor]], pair: tuple[int, int], pulled: frozenset[int]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What `Interpolated` gives for tensors that stand at one point, and the `squared_cosine` of two of their corners.

    Both read all weights, forwards and backwards. They do it together and tensor by tensor, for on a CPU most of what
    they cost is waiting for memory.

    Args:
        coefficients: of the C corners.
        corners_CT: the T tensors of each.
        pair: the corners between which the cosine is taken.
        pulled: the tensors of which it is taken, 0..T-1.

    Returns: the squared cosine (0 of no tensors) and the T blends.
    """
    cosine, *blended = _Blend.apply(coefficients, pair, pulled, *(tensor for each in corners_CT for tensor in each))
    return cosine, tuple(blended)


class _Blend(torch.autograd.Function):
    """`sum of c_i w_i`, whose gradient in w_i is c_i times that of the sum, and the pull between two corners."""

    @staticmethod
    def forward(
        ctx: Any, coefficients: Sequence[float], pair: tuple[int, int], pulled: frozenset[int], *flat: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(flat) // len(coefficients)
        blends, products, saved = [], [], []
        for place in range(count):
            tensors = flat[place::count]
            blends.append(_sum(coefficients, tensors))
            if place in pulled:
                both = [tensors[number] for number in pair]
                products.append(_products(*both))
                saved += both
        cosine, *sums = _cosine(products, flat[0])
        ctx.coefficients, ctx.pair, ctx.pulled = coefficients, pair, pulled
        ctx.set_materialize_grads(False)  # an unused layer gets no gradient, and no pull where none is asked for
        ctx.save_for_backward(*sums, *saved)
        return cosine, *blends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_cosine: Tensor | None, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        sums, saved, (one, other) = ctx.saved_tensors[:3], iter(ctx.saved_tensors[3:]), ctx.pair
        factors = None if to_cosine is None else _factors(to_cosine, *sums)
        scaled_TC: list[list[Tensor | None]] = []
        for place, gradient in enumerate(gradients):
            scaled_C = [None if gradient is None else gradient * coefficient for coefficient in ctx.coefficients]
            if place in ctx.pulled:
                a, b = next(saved), next(saved)
                if factors is not None:
                    to_a, to_b = scaled_C[one], scaled_C[other]
                    to_a, to_b = (torch.zeros_like(a) if to is None else to for to in (to_a, to_b))
                    _add_pull(factors, a, b, to_a, to_b)
                    scaled_C[one], scaled_C[other] = to_a, to_b
            scaled_TC.append(scaled_C)
        return None, None, None, *(scaled for corner in zip(*scaled_TC, strict=True) for scaled in corner)


def squared_cosine(firsts: Sequence[Tensor], seconds: Sequence[Tensor]) -> Tensor:
    """Squared cosine, 0..1, of the angle between two corners, all tensors of each as one vector.

    arXiv 2102.10472, equation 5: driven to 0 it makes the corners, and what they predict, differ. Gradients flow to
    both.
    """
    value: Tensor = _SquaredCosine.apply(len(firsts), *firsts, *seconds)
    return value


class _SquaredCosine(torch.autograd.Function):
    """Its gradient is written out because autograd's own would pass over all weights a dozen times."""

    @staticmethod
    def forward(ctx: Any, count: int, *both: Tensor) -> Tensor:
        pairs = zip(both[:count], both[count:], strict=True)
        cosine, *sums = _cosine([_products(a, b) for a, b in pairs], both[0])
        ctx.save_for_backward(*sums, *both)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        sums, both = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        told, factors, count = [torch.zeros_like(each) for each in both], _factors(gradient, *sums), len(both) // 2
        for place in range(count):
            pair = (place, place + count)
            _add_pull(factors, *(both[i] for i in pair), *(told[i] for i in pair))
        return None, *told


def _sum(coefficients: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    if len(coefficients) == 2:
        return torch.lerp(tensors[0], tensors[1], coefficients[1])
    total = coefficients[0] * tensors[0]
    for coefficient, tensor in zip(coefficients[1:], tensors[1:], strict=True):
        total.add_(tensor, alpha=coefficient)
    return total


def _products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a.b, |a|^2 and |b|^2."""
    a, b = _flat(a), _flat(b)
    return torch.dot(a, b), torch.dot(a, a), torch.dot(b, b)


def _cosine(products: Sequence[tuple[Tensor, Tensor, Tensor]], like: Tensor) -> tuple[Tensor, ...]:
    """The squared cosine, and the products summed over the tensors; 0 of no tensors."""
    if not products:
        return (like.new_zeros(()),) * 4
    product, first, second = (torch.stack(each).sum() for each in zip(*products, strict=True))
    return product.square() / (first * second), product, first, second


def _factors(gradient: Tensor, product: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With p = a.b the gradient of p^2 / (|a|^2 |b|^2) in a is 2 p / (|a|^2 |b|^2) (b - p / |a|^2 a), in b likewise."""
    outer = gradient * 2 * product / (first * second)
    return outer, -outer * product / first, -outer * product / second


def _add_pull(factors: tuple[Tensor, Tensor, Tensor], a: Tensor, b: Tensor, to_a: Tensor, to_b: Tensor) -> None:
    outer, own_a, own_b = factors
    to_a.addcmul_(b, outer).addcmul_(a, own_a)
    to_b.addcmul_(a, outer).addcmul_(b, own_b)


def _flat(weight: Tensor) -> Tensor:
    """In the order of the memory, so that nothing is copied; two corners of a weight have the same."""
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        weight = weight.permute(0, 2, 3, 1)
    return weight.reshape(-1)

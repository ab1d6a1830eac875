"""A weight as a blend of corners: lines, Bezier curves and simplexes of models."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

from buttress.errors import SettingsError
from buttress.weights.levels import Level, Levelled, Point, require_between
from buttress.weights.settings import LevelKind, SubspaceKind
from buttress.weights.sites import Site

CHUNK = 65_536  # numbers of the tensors that are worked on at once: of a corner, its like, their blend and gradients
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
    coefficients = blend(blended[0].kind, point)
    for told in {id(each.coefficients): each.coefficients for each in blended}.values():
        if told.device.type == "cpu" and told.dtype in (torch.float32, torch.float64):
            told.numpy()[:] = coefficients  # two operations of torch less in every step
            torch.autograd.graph.increment_version(told)
        else:
            told.copy_(torch.tensor(coefficients, dtype=torch.float64))


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


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tensors that are worked on at once.

    Args:
        places: of them among all, ascending.
        pulled: whether the regulariser is of them; of all or none.
    """

    places: tuple[int, ...]
    pulled: bool


def chunked(tensors: Sequence[Tensor], pulled: Collection[int]) -> tuple[Chunk, ...]:
    """All places of `tensors`, large ones alone and small ones together, so that a chunk stays in a core's cache."""
    found = []
    for wanted in (True, False):
        places: list[int] = []
        for place, tensor in enumerate(tensors):
            if (place in pulled) != wanted:
                continue
            if places and sum(tensors[p].numel() for p in places) + tensor.numel() > CHUNK:
                found.append(Chunk(tuple(places), wanted))
                places = []
            places.append(place)
        if places:
            found.append(Chunk(tuple(places), wanted))
    return tuple(found)


def blend_together(
    coefficients: Sequence[float],
    corners_CT: Sequence[Sequence[Tensor]],
    pair: tuple[int, int],
    chunks: Sequence[Chunk],
    beta: float = 1.0,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What `Interpolated` gives for tensors at one point, and `beta * squared_cosine` of two of their corners.

    Both read all weights, forwards and backwards. They do it together and chunk by chunk, for on a CPU most of what
    they cost is waiting for memory, and asking for one operation after another.

    Args:
        coefficients: of the C corners.
        corners_CT: the T tensors of each.
        pair: the corners between which the cosine is taken.
        chunks: of 0..T-1, every one once.
        beta: what the squared cosine is multiplied by.

    Returns: that (0 of no tensors) and the T blends.
    """
    flat = (tensor for each in corners_CT for tensor in each)
    cosine, *blended = _Blend.apply(coefficients, pair, chunks, beta, *flat)
    return cosine, tuple(blended)


class _Blend(torch.autograd.Function):
    """`sum of c_i w_i`, whose gradient in w_i is c_i times that of the sum, and the pull between two corners."""

    @staticmethod
    def forward(
        ctx: Any,
        coefficients: Sequence[float],
        pair: tuple[int, int],
        chunks: Sequence[Chunk],
        beta: float,
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        count = len(flat) // len(coefficients)
        corners_CT = [flat[start : start + count] for start in range(0, len(flat), count)]
        blends, saved = list(flat[:count]), list[Tensor]()
        products: list[Sequence[Any]] = []
        for chunk in chunks:
            corners = [[corner[place] for place in chunk.places] for corner in corners_CT]
            for place, value in zip(chunk.places, _sums(coefficients, corners), strict=True):
                blends[place] = value
            if chunk.pulled:
                ones, others = (corners[number] for number in pair)
                products += map(_products, ones, others)
                saved += [*ones, *others]
        cosine, sums = _cosine(products, flat[0], beta)
        ctx.beta, ctx.coefficients, ctx.pair, ctx.chunks = beta, coefficients, pair, chunks
        ctx.set_materialize_grads(False)  # an unused layer gets no gradient, and no pull where none is asked for
        ctx.sums, ctx.pulled = sums, saved  # parameters, which nothing writes to before; to be told so takes longer
        return cosine, *blends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_cosine: Tensor | None, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (one, other), rest, count = ctx.pair, iter(ctx.pulled), len(ctx.coefficients)
        wanted = _factors(to_cosine, ctx.sums, ctx.beta) if to_cosine is not None and ctx.pulled else ()
        like = next((gradient for gradient in (*gradients, to_cosine) if gradient is not None), torch.empty(()))
        scalars = _scalars((*ctx.coefficients, *wanted), like)
        scales, factors = scalars[:count], scalars[count:]
        to_CT: list[list[Tensor | None]] = [[None] * len(gradients) for _ in ctx.coefficients]
        for chunk in ctx.chunks:
            firsts, seconds = (list(islice(rest, len(chunk.places) * chunk.pulled)) for _ in range(2))
            places = [place for place in chunk.places if gradients[place] is not None]
            asked = [gradient for place in places if (gradient := gradients[place]) is not None]
            scaled_C = [list(torch._foreach_mul(asked, scale)) for scale in scales] if asked else []
            for to, scaled in zip(to_CT, scaled_C, strict=False):
                for place, gradient in zip(places, scaled, strict=True):
                    to[place] = gradient
            if chunk.pulled and factors:
                if len(places) < len(chunk.places):
                    pulled = [_or_zeros(to_CT[number], chunk.places, firsts) for number in (one, other)]
                else:
                    pulled = [scaled_C[one], scaled_C[other]]
                _add_pulls(factors, firsts, seconds, *pulled)
        return None, None, None, None, *(gradient for to in to_CT for gradient in to)


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
        cosine, ctx.sums = _cosine([_products(a, b) for a, b in pairs], both[0], 1.0)
        ctx.save_for_backward(*both)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        both = list(ctx.saved_tensors)
        count = len(both) // 2
        firsts, seconds = both[:count], both[count:]
        told = [[torch.zeros_like(each) for each in corner] for corner in (firsts, seconds)]
        if count:
            _add_pulls(_scalars(_factors(gradient, ctx.sums, 1.0), gradient), firsts, seconds, *told)
        return None, *told[0], *told[1]


def _sums(coefficients: Sequence[float], corners_CT: Sequence[list[Tensor]]) -> list[Tensor]:
    if len(coefficients) == 2:
        return list(torch._foreach_lerp(corners_CT[0], corners_CT[1], coefficients[1]))
    totals = list(torch._foreach_mul(corners_CT[0], coefficients[0]))
    for coefficient, corner in zip(coefficients[1:], corners_CT[1:], strict=True):
        torch._foreach_add_(totals, corner, alpha=coefficient)
    return totals


def _products(a: Tensor, b: Tensor) -> Sequence[Any]:
    """a.b, |a|^2 and |b|^2: numbers; of an accelerator, which is not waited for, tensors."""
    a, b = _flat(a), _flat(b)
    products = torch.dot(a, b), torch.dot(a, a), torch.dot(b, b)
    return [product.item() for product in products] if a.device.type == "cpu" else products


def _cosine(products: Sequence[Sequence[Any]], like: Tensor, beta: float) -> tuple[Tensor, Sequence[Any]]:
    """The squared cosine times `beta`, and the three products summed over the tensors; 0 of no tensors."""
    if not products:
        return like.new_zeros(()), ()
    if like.device.type == "cpu":
        product, first, second = (sum(each) for each in zip(*products, strict=True))
        squares = first * second
        return like.new_tensor(beta * product * product / squares if squares else math.nan), (product, first, second)
    product, first, second = torch.stack([one for each in products for one in each]).view(-1, 3).sum(0).unbind()
    return beta * product.square() / (first * second), (product, first, second)


def _factors(gradient: Tensor, sums: Sequence[Any], beta: float) -> tuple[Any, Any, Any]:
    """With p = a.b the gradient of p^2 / (|a|^2 |b|^2) in a is 2 p / (|a|^2 |b|^2) (b - p / |a|^2 a), in b likewise.

    Returns: what b and a are multiplied by, and b in its own: numbers, or tensors, as the sums are.
    """
    product, first, second = sums
    told: Any = gradient
    if gradient.device.type == "cpu":
        told = gradient.item()
        if not first * second:  # of a corner of zeros, as of tensors
            return math.nan, math.nan, math.nan
    outer = told * beta * 2 * product / (first * second)
    return outer, -outer * product / first, -outer * product / second


def _scalars(numbers: Sequence[Any], like: Tensor) -> Sequence[Any]:
    """To multiply tensors like `like` with.

    A number would be made a tensor anew for every product. On an accelerator they stay: it would have to be sent them.
    """
    if like.device.type != "cpu":
        return numbers
    return torch.tensor(numbers, dtype=torch.promote_types(like.dtype, torch.float32)).unbind()


def _or_zeros(gradients: list[Tensor | None], places: Sequence[int], like: list[Tensor]) -> list[Tensor]:
    """The gradients at these places; zeros, which take their place, where there is none."""
    told = []
    for place, tensor in zip(places, like, strict=True):
        gradient = gradients[place]
        if gradient is None:
            gradient = gradients[place] = torch.zeros_like(tensor)
        told.append(gradient)
    return told


def _add_pulls(
    factors: Sequence[Tensor],
    firsts: list[Tensor],
    seconds: list[Tensor],
    to_firsts: list[Tensor],
    to_seconds: list[Tensor],
) -> None:
    outer, own_first, own_second = ([factor] * len(firsts) for factor in factors)
    torch._foreach_addcmul_(to_firsts, seconds, outer)
    torch._foreach_addcmul_(to_firsts, firsts, own_first)
    torch._foreach_addcmul_(to_seconds, firsts, outer)
    torch._foreach_addcmul_(to_seconds, seconds, own_second)


def _flat(weight: Tensor) -> Tensor:
    """In the order of the memory, so that nothing is copied; two corners of a weight have the same."""
    if weight.ndim == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last):
        return weight.as_strided((weight.numel(),), (1,))
    return weight.reshape(-1)

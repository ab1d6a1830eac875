"""Levels: where an elastic model stands. One set of weights serves at many of them, chosen at run time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from buttress.errors import ModelError, SettingsError
from buttress.nearest import did_you_mean
from buttress.weights.settings import LevelKind

if TYPE_CHECKING:
    from torch import nn

    from buttress.weights.method import CompressionMethod

Point = tuple[float, ...]
SAME = 1e-9  # numbers that differ by less are one, for they may come from a text
KINDS: tuple[LevelKind, ...] = get_args(LevelKind)
FORMS = "at=0.5, at=0.2/0.3 (a simplex), at=0+1 (both points' mean logits), keep=0.1, width=0.5 or bits=4"


@dataclass(frozen=True, slots=True)
class Level:
    """A level by name.

    Args:
        kind: `at` (a point of a subspace), `keep` (share of weights that are not zero), `width` (share of channels) or
            `bits` (of weights and activations).
        points: one, or of `at` several whose logits are averaged; each of one number, of a simplex one per free corner.
    """

    kind: LevelKind
    points: tuple[Point, ...]

    @classmethod
    def of(cls, kind: LevelKind, value: float | Sequence[float]) -> Level:
        """A level of one point."""
        return cls(kind, (tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),),))

    @classmethod
    def parse(cls, text: str) -> Level:
        """Of `keep=0.1` and its like.

        Raises:
            SettingsError: it is none.
        """
        kind, equals, value = text.partition("=")
        if kind not in KINDS or not equals:
            raise SettingsError(f"level {text!r}: expected {FORMS}{did_you_mean(kind, KINDS)}")
        try:
            points = tuple(tuple(float(number) for number in point.split("/")) for point in value.split("+"))
        except ValueError:
            raise SettingsError(f"level {text!r}: {value!r} is not a number; expected {FORMS}") from None
        if not all(math.isfinite(number) for point in points for number in point):
            raise SettingsError(f"level {text!r}: expected finite numbers")
        if kind != "at" and (len(points) > 1 or len(points[0]) > 1):
            raise SettingsError(f"level {text!r}: {kind} takes one number")
        return cls(kind, points)

    def __str__(self) -> str:
        return f"{self.kind}=" + "+".join("/".join(f"{number:.12g}" for number in point) for point in self.points)

    @property
    def value(self) -> float:
        """The number of a level that has but one."""
        return self.points[0][0]


class Levelled:
    """A part of a model that follows a level of its `level_kind`."""

    level_kind: LevelKind

    def require(self, point: Point) -> None:
        """Raises: SettingsError, for a point that it was not trained for; here none is."""

    def set_level(self, point: Point, owner: nn.Module) -> None:
        """Stand at `point`; `owner` is the module that this one is a child of.

        Raises: SettingsError, as `require`.
        """
        raise NotImplementedError


def levelled(model: nn.Module, kind: LevelKind | None = None) -> Iterator[tuple[nn.Module, Levelled]]:
    """Every part that follows a level (of that kind), with the module that it is a child of."""
    for owner in model.modules():
        for child in owner.children():
            if isinstance(child, Levelled) and kind in (None, child.level_kind):
                yield owner, child


def set_level(
    model: nn.Module,
    *,
    at: float | Sequence[float] | None = None,
    keep: float | None = None,
    width: float | None = None,
    bits: int | None = None,
) -> None:
    """Move an elastic model, in place, to a level; the next forward is that of this level.

    Args:
        model: prepared by `subspace` or `lcs`.
        at: a point of a subspace: 0..1 of a line or curve, the weights of all corners but the first of a simplex.
        keep: share of the weights, 0..1, that are not zero.
        width: share of the channels, 0..1.
        bits: of weights and activations.

    Raises:
        SettingsError: none or several levels, or one outside what the model was trained for.
        ModelError: the model has no such level.
    """
    given = {"at": at, "keep": keep, "width": width, "bits": bits}
    named = [Level.of(kind, value) for kind in KINDS if (value := given[kind]) is not None]
    if len(named) != 1:
        raise SettingsError(f"a model stands at one level: give one of {', '.join(KINDS)}")
    move(model, named[0])


def move(model: nn.Module, level: Level) -> None:
    """The same for a level in hand, of one point.

    Raises:
        SettingsError: it has several points, or lies outside what the model was trained for.
        ModelError: the model has no such level.
    """
    if len(level.points) != 1:
        raise SettingsError(f"level {level}: of several points; a model stands at one")
    parts = list(levelled(model, level.kind))
    if not parts:
        has = sorted({part.level_kind for _, part in levelled(model)})
        raise ModelError(f"level {level}: this model has {'levels of ' + ', '.join(has) if has else 'no levels'}")
    for _, part in parts:  # before any of them moves
        part.require(level.points[0])
    for owner, part in parts:
        part.set_level(level.points[0], owner)


def require_between(level: Level, low: float, high: float) -> None:
    """Raises: SettingsError, where a level lies outside what a model was trained for."""
    if not all(low - SAME <= number <= high + SAME for point in level.points for number in point):
        raise SettingsError(f"level {level}: outside {low:g}..{high:g}, what this model was trained for")


def of_level(
    prepared: Sequence[tuple[nn.Module, Sequence[CompressionMethod]]], level: Level | None, *, measured: bool = False
) -> tuple[nn.Module, int | None]:
    """A plain network of a level, made in place of prepared models, and, if measured, the bytes of its packed weights.

    prepared: for each point of the level (one where there is none) a model with the methods that act on it; without
        methods there are no packed weights.

    Raises: SettingsError, ModelError, as `move`.
    """
    from buttress.models.packed import sizes

    stored = 0
    for (module, methods), point in zip(prepared, (None,) if level is None else level.points, strict=True):
        if level is not None and point is not None:
            move(module, Level(level.kind, (point,)))
        if methods and measured:
            stored += sizes(methods[-1].packed(module)).file
        for method in reversed(methods):
            method.materialise(module)
    if len(prepared) == 1:
        return prepared[0][0], stored or None
    from buttress.weights.ensemble import MeanLogits

    return MeanLogits([module for module, _ in prepared]), stored or None

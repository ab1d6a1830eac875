"""One teacher or several as one: the weighted mean of their probabilities (arXiv 2303.08983; MEAL V2, 2009.08453).

Shape legend: B views, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from buttress.errors import ModelError, SettingsError
from buttress.teachers.teacher import Teacher, TeacherSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class EnsembleSpec:
    """How to open one teacher or several; small and picklable, so that workers open their own.

    members: at least one, each with its own size, temperature and class map.
    weights: a finite number above 0 per member; only their ratios count. Empty = equal.
    """

    members: tuple[TeacherSpec, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.members)
        if not count:
            raise SettingsError("--teacher: name at least one")
        if self.weights and len(self.weights) != count:
            raise SettingsError(f"--teacher-weights: {len(self.weights)} weights for {count} teachers; give one each")
        if wrong := [weight for weight in self.weights if not (math.isfinite(weight) and weight > 0)]:
            raise SettingsError(f"--teacher-weights {wrong[0]}: must be a finite number above 0")

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights of the members, divided by their sum."""
        largest = max(self.weights, default=1.0)
        weights = [weight / largest for weight in self.weights] or [1.0] * len(self.members)
        return tuple(weight / math.fsum(weights) for weight in weights)

    @classmethod
    def of(cls, teacher: TeacherSpec | EnsembleSpec) -> EnsembleSpec:
        """The ensemble that a single teacher is; an ensemble is itself."""
        return teacher if isinstance(teacher, EnsembleSpec) else cls(members=(teacher,))

    def with_threads(self, threads: int) -> EnsembleSpec:
        """The same with that many of torch's threads for each member."""
        return replace(self, members=tuple(replace(member, threads=threads) for member in self.members))

    def open(self) -> Ensemble:
        """Open every member in this process.

        Raises: ModelError, where one cannot be opened or they do not go together.
        """
        return Ensemble(self, [member.open() for member in self.members])


class Ensemble:
    """Open teachers, asked together: each sees the very same views, drawn at its own size.

    Alone, a teacher's answer is left as it is.
    """

    def __init__(self, spec: EnsembleSpec, members: Sequence[Teacher]) -> None:
        """
        spec: how it was asked for; members: its members, opened, in order.

        Raises: ModelError, where members have the same weights or end in other classes.
        """
        assert len(members) == len(spec.members)
        self.members = tuple(members)
        self.shares = spec.shares
        self.spec = replace(spec, members=tuple(member.spec for member in members))
        self.sizes: tuple[int, ...] = tuple(dict.fromkeys(member.size for member in members))
        _refuse_twins(self.members)
        _refuse_other_classes(self.members)

    @property
    def name(self) -> str:
        """The members' URIs, for messages."""
        return " + ".join(member.spec.uri for member in self.members)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names that all members end in; None if not known."""
        return self.members[0].classes

    @property
    def unmapped_share(self) -> float:
        """Weighted mean of the members' own, see `Teacher`."""
        return sum(share * one.unmapped_share for share, one in zip(self.shares, self.members, strict=True))

    @property
    def doubts(self) -> list[str]:
        """Lines of warning: Python teachers that may be one and the same."""
        return [
            f"{one} and {other} come from one file; if they are the same function, it counts twice"
            for (one, first), (other, second) in _pairs(self.members)
            if first.get("source_sha256") and first.get("source_sha256") == second.get("source_sha256")
        ]

    def probabilities(self, views: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Weighted arithmetic mean of the members' probabilities [B, C], each after its own class map.

        views: the very same B views at each of `sizes`: side in pixels -> uint8 RGB [B, side, side, 3].
        """
        if len(self.members) == 1:
            return self.members[0].probabilities(views[self.members[0].size])
        answers = [member.probabilities(views[member.size]) for member in self.members]
        self._check_widths(answers)
        mean_BC: NDArray[np.float64] = np.zeros(answers[0].shape)
        for share, answer_BC in zip(self.shares, answers, strict=True):
            mean_BC += share * answer_BC.astype(np.float64)
        return mean_BC.astype(np.float32)

    def describe(self) -> tuple[dict[str, Any], ...]:
        """What the card says of each member; its `weight` only where there are several."""
        said = [{**member.describe(), "uri": member.spec.uri} for member in self.members]
        if len(said) == 1:
            return tuple(said)
        return tuple({**one, "weight": share} for one, share in zip(said, self.shares, strict=True))

    def _check_widths(self, answers: Sequence[NDArray[np.float32]]) -> None:
        """Python teachers that name no classes show only now how many they have."""
        for member, answer in zip(self.members[1:], answers[1:], strict=True):
            if answer.shape != answers[0].shape:
                raise ModelError(
                    f"{member.spec.uri}: gives {answer.shape[1]} classes, {self.members[0].spec.uri} "
                    f"{answers[0].shape[1]}; teachers of one ensemble must end in the same classes"
                )


def _pairs(members: Sequence[Teacher]) -> Iterator[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]]:
    """URI and description of each two members."""
    return combinations([(member.spec.uri, member.describe()) for member in members], 2)


def _refuse_twins(members: Sequence[Teacher]) -> None:
    """One network twice is no ensemble, and comes easily: timm maps several old names to one model."""
    for (one, first), (other, second) in _pairs(members):
        same = first["weights_sha256"] == second["weights_sha256"] and first.get("level") == second.get("level")
        if one == other or (first["weights_sha256"] and same):
            raise ModelError(
                f"{one} and {other} are the same teacher{' (equal weights_sha256)' if one != other else ''}; "
                "name another one, or let one count more by --teacher-weights"
            )


def _refuse_other_classes(members: Sequence[Teacher]) -> None:
    first = members[0]
    for member in members[1:]:
        if member.classes != first.classes:
            raise ModelError(
                f"{member.spec.uri}: ends in other classes than {first.spec.uri} ({_difference(member, first)}); "
                "teachers of one ensemble must end in the same, in the same order"
            )


def _difference(member: Teacher, first: Teacher) -> str:
    ours, theirs = member.classes, first.classes
    if ours is None or theirs is None:
        return f"{(member if ours is None else first).spec.uri} does not name its classes"
    odd = sorted(set(ours) ^ set(theirs))[:3]
    return f"{len(ours):,} against {len(theirs):,}, e.g. {', '.join(map(repr, odd))}" if odd else "in another order"

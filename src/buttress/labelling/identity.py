"""What decides the bytes of labels; two labellings may be joined only where all of it is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from buttress.errors import LabellingError
from buttress.labelling.settings import LabelSettings
from buttress.sources import Source
from buttress.store.card import Card, Field, RendererId, settings_digest, standard_fields, truth_field
from buttress.teachers.ensemble import Ensemble
from buttress.views.policy import Policy
from buttress.views.render import RENDERER, RENDERER_VERSION


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Settings that every part of a reinforcement shares."""

    seed: int
    k: int
    classes: tuple[str, ...]
    policy: Policy
    renderer: RendererId
    teachers: tuple[Mapping[str, Any], ...]
    labelling: Mapping[str, Any]
    fields: tuple[Field, ...]

    @classmethod
    def of(cls, source: Source, teacher: Ensemble, policy: Policy, settings: LabelSettings) -> Identity:
        """Of a labelling that is about to start.

        Raises:
            LabellingError: the teacher's classes have no names; truth in classes that are not the source's.
        """
        classes = teacher.classes if teacher.classes is not None else source.classes
        if classes is None:
            raise LabellingError(
                f"{teacher.name}: nobody knows the names of its classes; name them by --class-map FILE.yaml"
            )
        if settings.truth and source.classes is None:
            raise LabellingError(f"--truth: {source.uri} has no labels whose probability could be stored; leave it out")
        if settings.truth and source.classes is not None and tuple(source.classes) != tuple(classes):
            raise LabellingError(
                "--truth: is the probability of each image's own class, and --classes teacher keeps the teacher's "
                "classes instead; leave one of the two out"
            )
        k = min(settings.k, len(classes))
        return cls(
            seed=settings.seed,
            k=k,
            classes=tuple(classes),
            policy=policy,
            renderer=RendererId(id=RENDERER, version=RENDERER_VERSION),
            teachers=teacher.describe(),
            labelling={"batch": settings.batch, "views_per_block": settings.views_per_block},
            fields=(*standard_fields(k, len(classes)), *([truth_field()] if settings.truth else [])),
        )

    @classmethod
    def stored(cls, card: Card) -> Identity:
        """Of a reinforcement that exists."""
        return cls(**{name: getattr(card, name) for name in cls.__dataclass_fields__})

    @cached_property
    def digest(self) -> str:
        """`Card.settings_digest` of it."""
        return settings_digest(**self.values())

    @property
    def has_truth(self) -> bool:
        """Whether the hard label's probability is stored too."""
        return truth_field() in self.fields

    def values(self) -> dict[str, Any]:
        """Its fields by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def differences(self, other: Identity) -> list[str]:
        """Names of what differs, those of the teachers one by one."""
        found = [
            name
            for name in ("seed", "k", "classes", "policy", "renderer", "labelling")
            if getattr(self, name) != getattr(other, name)
        ]
        if self.has_truth != other.has_truth:
            found.append("truth")
        if len(self.teachers) != len(other.teachers):
            return [*found, f"teachers, {len(self.teachers)} and not {len(other.teachers)},"]
        several = len(self.teachers) > 1
        for ours, theirs in zip(self.teachers, other.teachers, strict=True):
            whose = f"{ours['uri']}'s" if several else "teacher's"
            found += [f"{whose} {key}" for key in _different_keys(ours, theirs)]
        return found


def _different_keys(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Keys of a teacher's description that differ; where its weights lie is none where they are known."""
    keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    return [key for key in keys if key != "uri" or not ours.get("weights_sha256")]

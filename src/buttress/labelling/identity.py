"""What decides the bytes of labels; two labellings may be joined only where all of it is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from buttress.errors import LabellingError
from buttress.labelling.settings import LabelSettings
from buttress.sources import Source
from buttress.store.card import Card, RendererId, settings_digest
from buttress.teachers.teacher import Teacher
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

    @classmethod
    def of(cls, source: Source, teacher: Teacher, policy: Policy, settings: LabelSettings) -> Identity:
        """Of a labelling that is about to start.

        Raises:
            LabellingError: the teacher's classes have no names.
        """
        classes = teacher.classes if teacher.classes is not None else source.classes
        if classes is None:
            raise LabellingError(
                f"{teacher.spec.uri}: nobody knows the names of its classes; name them by --class-map FILE.yaml"
            )
        return cls(
            seed=settings.seed,
            k=min(settings.k, len(classes)),
            classes=tuple(classes),
            policy=policy,
            renderer=RendererId(id=RENDERER, version=RENDERER_VERSION),
            teachers=({**teacher.describe(), "uri": teacher.spec.uri},),
            labelling={"batch": settings.batch, "views_per_block": settings.views_per_block},
        )

    @classmethod
    def stored(cls, card: Card) -> Identity:
        """Of a reinforcement that exists."""
        return cls(**{name: getattr(card, name) for name in cls.__dataclass_fields__})

    @cached_property
    def digest(self) -> str:
        """`Card.settings_digest` of it."""
        return settings_digest(**self.values())

    def values(self) -> dict[str, Any]:
        """Its fields by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def differences(self, other: Identity) -> list[str]:
        """Names of what differs, the teacher's one by one."""
        found = [
            name
            for name in ("seed", "k", "classes", "policy", "renderer", "labelling")
            if getattr(self, name) != getattr(other, name)
        ]
        ours, theirs = self.teachers[0], other.teachers[0]
        keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        return found + [f"teacher's {key}" for key in keys if key != "uri" or not ours.get("weights_sha256")]

"""What a model is to learn from, and by which objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from buttress.errors import SettingsError, TrainingError
from buttress.loading.auxiliary import AuxiliaryBatches
from buttress.loading.batches import Batches, HardBatches, ReinforcedBatches
from buttress.loading.online import OnlineBatches
from buttress.sources import Source, fingerprint
from buttress.store.reader import Reinforcement
from buttress.teachers.ensemble import Ensemble, EnsembleSpec
from buttress.terminal import note
from buttress.training.objectives import AuxiliaryObjective, Objective, OnlineObjective, TargetObjective
from buttress.training.settings import LossSettings, TrainingSettings
from buttress.views.policy import Policy


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a model is to learn from.

    Args:
        source: the images.
        policy: augmentation for hard labels and for a live teacher; a reinforcement brings its own.
        reinforcement: what the teacher said; none = hard labels, or a live teacher.
        teacher: asked about every view while the model trains; it cuts its answer to the source's classes.
        head: "own" learns the classes of the targets. "auxiliary" learns the source's classes from its hard labels, and
            those of the reinforcement, which are the teacher's own, by a second head that is dropped at the end.
        missing: "error" or "hard", for samples the reinforcement does not know.
        p: probability of a stored view, else the hard label on a view that was not stored (arXiv 2303.08983).
        val: labelled images to score on.
        val_map: YAML file, class of `val` -> class that the model learns, where names do not say it.
        max_bad: largest share, 0..1, of images that may fail to decode.

    Raises:
        SettingsError: parts that do not go together.
    """

    source: Source
    policy: Policy | None = None
    reinforcement: Reinforcement | None = None
    teacher: EnsembleSpec | None = None
    head: Literal["own", "auxiliary"] = "own"
    missing: str = "error"
    p: float = 0.99
    val: Source | None = None
    val_map: Path | None = None
    max_bad: float = 0.001

    def __post_init__(self) -> None:
        if self.teacher is not None and self.reinforcement is not None:
            raise SettingsError("a live teacher and a reinforcement are two sources of targets; leave one out")
        if self.head == "auxiliary" and self.reinforcement is None:
            raise SettingsError("--head auxiliary needs --reinforcement DIR with the teacher's own classes")
        if self.head == "auxiliary" and self.missing == "hard":
            raise SettingsError("--missing hard: the second head of --head auxiliary needs the teacher on every image")

    @property
    def classes(self) -> tuple[str, ...]:
        """What the model learns to tell apart."""
        if self.teacher is not None:
            if self.live_teacher.classes is None:
                raise TrainingError(f"{self.live_teacher.name}: nobody knows the names of its classes")
            if self.source.classes is not None and tuple(self.source.classes) != tuple(self.live_teacher.classes):
                raise SettingsError(
                    f"{self.live_teacher.name}: a live teacher must answer in the classes of {self.source.uri}; for "
                    "its own take the labels off the source, or store them by buttress reinforce --classes teacher"
                )
            return tuple(self.live_teacher.classes)
        if self.reinforcement is not None and self.head == "own":
            return tuple(self.reinforcement.classes)
        if self.source.classes is None:
            raise TrainingError(
                f"{self.source.uri}: has no classes to learn; put images in class sub-folders, or use --reinforcement"
                + (" with --head own" if self.head == "auxiliary" else "")
            )
        return tuple(self.source.classes)

    @cached_property
    def live_teacher(self) -> Ensemble:
        """The teacher, opened once."""
        assert self.teacher is not None
        return self.teacher.open()

    def batches(self, size: int, settings: TrainingSettings) -> Batches:
        """Views and targets at `size` pixels."""
        seed = settings.seed
        if self.reinforcement is not None:
            return self._reinforced(self.reinforcement, size, seed, truth=settings.loss.truth_floor > 0)
        if self.policy is None:
            raise SettingsError("training on hard labels or from a live teacher needs a policy")
        if self.teacher is not None:
            sizes = self.live_teacher.sizes
            return OnlineBatches(self.source, self.policy, seed=seed, size=size, teacher_sizes=sizes)
        return HardBatches(self.source, self.policy, seed=seed, size=size)

    def _reinforced(self, reinforcement: Reinforcement, size: int, seed: int, *, truth: bool) -> Batches:
        if self.policy not in (None, reinforcement.card.policy):
            raise SettingsError(
                f"{reinforcement.path}: was made with another policy, and its labels belong to its own views; "
                "leave --policy out"
            )
        if self.head == "auxiliary":
            batches: ReinforcedBatches = AuxiliaryBatches(self.source, reinforcement, size=size, seed=seed)
        else:
            batches = ReinforcedBatches(
                self.source, reinforcement, size=size, p=self.p, missing=self.missing, seed=seed, truth=truth
            )
        note(batches.line())
        return batches

    def objective(self, settings: TrainingSettings) -> Objective:
        """What a step on these data minimises.

        Raises:
            SettingsError: a setting of the loss would be of no effect on these data.
        """
        loss, smoothing = settings.loss, settings.label_smoothing
        hard, auxiliary = self.teacher is None and self.reinforcement is None, self.head == "auxiliary"
        own = not (hard or auxiliary or self._has_no_labels)
        refuse_unused(loss, soft=not hard, own_labels=own, auxiliary=auxiliary, smoothing=smoothing)
        if self.teacher is not None:
            return OnlineObjective(loss, smoothing=smoothing, teacher=self.live_teacher)
        if self.reinforcement is not None and auxiliary:
            labelled = float((np.asarray(self.source.labels) >= 0).mean())
            classes = len(self.reinforcement.classes)
            return AuxiliaryObjective(loss, smoothing=smoothing, classes=classes, labelled=labelled)
        return TargetObjective(loss, smoothing=smoothing)

    @property
    def _has_no_labels(self) -> bool:
        """Whether no image has a label among the stored classes: they are the teacher's own."""
        store = self.reinforcement
        return store is not None and store.card.keeps_teachers_classes and self.source.classes != tuple(store.classes)

    def _teachers(self) -> Sequence[Mapping[str, Any]]:
        """What a live teacher is; of a stored one its name, for the reinforcement's digest stands for all the rest."""
        if self.reinforcement is not None:
            name = ("uri", "model", "weights_sha256", "licence")
            return [{key: said.get(key) for key in name} for said in self.reinforcement.card.teachers]
        return [] if self.teacher is None else self.live_teacher.describe()

    def identity(self) -> dict[str, Any]:
        """What a run says of its data."""
        policy = self.reinforcement.card.policy if self.reinforcement is not None else self.policy
        return {
            "uri": self.source.uri,
            "fingerprint": fingerprint(self.source),
            "count": len(self.source),
            "policy": None if policy is None else policy.to_json(),
            "missing": self.missing,
            "head": self.head,
            "p": self.p,
            "teachers": _portable(self._teachers()) or None,
        }


def refuse_unused(loss: LossSettings, *, soft: bool, own_labels: bool, auxiliary: bool, smoothing: float = 0.0) -> None:
    """Refuse settings of a loss that would be of no effect, all of them in one line.

    Args:
        loss: the settings.
        soft: whether there are soft targets.
        own_labels: whether images have a label beside them, among their classes.
        auxiliary: whether there is a second head.
        smoothing: of hard labels.

    Raises: SettingsError, naming each.
    """
    plain = LossSettings()
    idle = {
        "gamma": loss.gamma != plain.gamma and loss.name != "nkd",
        "auxiliary_weight": loss.auxiliary_weight != plain.auxiliary_weight and not auxiliary,
        "hard_weight": loss.hard_weight and not own_labels,
        "truth_floor": loss.truth_floor and not own_labels,
        "name": loss.name == "nkd" and not soft,
    }
    reasons = {
        "gamma": "gamma is of nkd",
        "auxiliary_weight": "auxiliary_weight is of --head auxiliary",
        "hard_weight": "hard_weight and truth_floor need soft targets of the images' own classes",
        "truth_floor": "hard_weight and truth_floor need soft targets of the images' own classes",
        "name": "nkd needs soft targets",
    }
    if wrong := [name for name, is_idle in idle.items() if is_idle]:
        told = ", ".join(f"loss.{name} = {getattr(loss, name)}" for name in wrong)
        why = "; ".join(dict.fromkeys(reasons[name] for name in wrong))
        raise SettingsError(f"{told}: of no effect here ({why}); leave {'it' if len(wrong) == 1 else 'them'} out")
    if smoothing and soft and not auxiliary and not (loss.hard_weight or loss.truth_floor):
        raise SettingsError(
            f"label_smoothing = {smoothing}: only hard labels are smoothed, and these targets are soft; set it to 0, "
            "or give hard labels a share by loss.hard_weight or loss.truth_floor"
        )


def _portable(teachers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What decides teachers' answers, by number: not on which machine it runs, nor where its weights lie."""
    idle = {"threads", "device"}
    return {
        str(number): {
            key: value
            for key, value in said.items()
            if key not in idle and (key != "uri" or not said.get("weights_sha256"))
        }
        for number, said in enumerate(teachers)
    }

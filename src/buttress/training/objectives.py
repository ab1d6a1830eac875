"""From a batch and the model's logits to the loss of a step. The engine knows only the protocol.

Shapes: B batch, C classes, D features before the classifier, T classes of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from buttress.errors import TrainingError
from buttress.loading.targets import Batch, SparseTargets
from buttress.training.losses import (
    binary_cross_entropy,
    even,
    kl_divergence,
    normalised_distillation,
    one_hot,
    soft_cross_entropy,
)
from buttress.training.settings import LossSettings

if TYPE_CHECKING:
    from buttress.teachers.ensemble import Ensemble

PerSample = Callable[[Tensor, SparseTargets], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What a step has to learn: soft targets, hard labels (int64 `[B]`, -1 = none; of mixed views sparse), or both.

    truth: what the teacher thinks of the sample's own class, `[B]`, 0..1; NaN = not known, or a mixed view.
    """

    soft: SparseTargets | None
    hard: SparseTargets | Tensor | None
    truth: Tensor | None = None


class Objective(Protocol):
    """What the engine asks, in this order; `targets` once a step, `loss` once a pass."""

    def prepare(self, model: nn.Module) -> None:
        """Add to `model` what is trained with it and is no part of it."""

    def targets(self, batch: Batch) -> Targets:
        """What the step has to learn; the batch lies on the model's device."""

    def loss(self, logits_BC: Tensor, targets: Targets) -> Tensor:
        """The loss, 0-d float32."""

    def finish(self, model: nn.Module) -> None:
        """Take out of the trained `model` what `prepare` added."""


class TargetObjective:
    """The loss by name over whatever targets the batches have: soft ones, hard labels, or a mixture.

    Args:
        settings: name of the loss and weight of the hard labels beside soft targets.
        smoothing: of hard labels, 0..1: they count 1 - s, the even target s.
    """

    def __init__(self, settings: LossSettings, *, smoothing: float = 0.0) -> None:
        self.settings, self.smoothing = settings, smoothing

    def prepare(self, model: nn.Module) -> None:
        """Nothing."""

    def finish(self, model: nn.Module) -> None:
        """Nothing."""

    def targets(self, batch: Batch) -> Targets:
        """Those of the batch."""
        if isinstance(batch.targets, Tensor) or batch.mixed:
            return Targets(soft=None, hard=batch.targets)
        return Targets(soft=batch.targets, hard=batch.labels, truth=batch.truth)

    def loss(self, logits_BC: Tensor, targets: Targets) -> Tensor:
        """Mean over the batch. Beside soft targets a sample's hard label counts `hard_weight`, and alone where the
        teacher's trust in it is below `truth_floor` (FerKD, arXiv 2312.17473: such views are uncertain).
        """
        hard = None if targets.hard is None else sparse(targets.hard, logits_BC.shape[1])
        if targets.soft is None:
            assert hard is not None
            return self.hard_loss(logits_BC, hard).mean()
        soft_B = self.soft_loss(logits_BC, targets.soft, hard)
        if hard is None or not (self.settings.hard_weight or self.settings.truth_floor):
            return soft_B.mean()
        weight_B = self.settings.hard_weight * mass(hard)
        if targets.truth is not None:
            weight_B = torch.where(targets.truth < self.settings.truth_floor, mass(hard), weight_B)
        return ((1 - weight_B) * soft_B + weight_B * self.hard_loss(logits_BC, hard)).mean()

    def hard_loss(self, logits_BC: Tensor, hard: SparseTargets) -> Tensor:
        """Smoothed cross-entropy (or its two-way form), `[B]`; 0 where there is no label."""
        per_sample = binary_cross_entropy if self.settings.name == "bce" else soft_cross_entropy
        loss_B = per_sample(logits_BC, hard)
        if self.smoothing:
            loss_B = (1 - self.smoothing) * loss_B + self.smoothing * per_sample(logits_BC, even(hard))
        return loss_B * mass(hard)

    def soft_loss(self, logits_BC: Tensor, soft: SparseTargets, hard: SparseTargets | None) -> Tensor:
        """The loss by its name, `[B]`."""
        if self.settings.name == "nkd":
            labels_B = likeliest(soft if hard is None else hard)
            return normalised_distillation(logits_BC, soft, labels_B, gamma=self.settings.gamma)
        return SOFT_LOSSES[self.settings.name](logits_BC, soft)


SOFT_LOSSES: dict[str, PerSample] = {
    "kl": kl_divergence,
    "ce": soft_cross_entropy,
    "bce": binary_cross_entropy,
}


class OnlineObjective(TargetObjective):
    """Distillation from a live teacher: it is asked about every view of every step.

    Args:
        settings, smoothing: as for `TargetObjective`.
        teacher: opened; its views travel with the batches.
    """

    def __init__(self, settings: LossSettings, *, smoothing: float = 0.0, teacher: Ensemble) -> None:
        super().__init__(settings, smoothing=smoothing)
        self.teacher = teacher

    def targets(self, batch: Batch) -> Targets:
        """What the teacher says of the batch's views, and the labels that the batch has."""
        hard = super().targets(batch).hard
        assert batch.teacher_views is not None
        views = {side: views_BHWC.numpy() for side, views_BHWC in batch.teacher_views.items()}
        probabilities_BC = torch.from_numpy(self.teacher.probabilities(views)).to(batch.images.device)
        truth_B = None
        if hard is not None and self.settings.truth_floor:
            labels_B = only_class(hard)
            own_B = probabilities_BC.gather(1, labels_B.clamp_min(0)[:, None])[:, 0]
            truth_B = torch.where(labels_B >= 0, own_B, torch.nan)
        return Targets(soft=dense_targets(probabilities_BC), hard=hard, truth=truth_B)


class AuxiliaryObjective(TargetObjective):
    """Own classes from hard labels; beside them a second head that learns the teacher's classes and is then dropped.

    The second head is one linear layer on what the classifier gets. It adds what the teacher knows of the images to
    the features, though the teacher has never heard of the classes (cf. auxiliary heads, Lee et al. 2015).

    Args:
        settings: `auxiliary_weight` scales the second head's loss.
        classes: T, the teacher's.
        smoothing: of the hard labels.
        labelled: share of the samples that have a label, above 0 and up to 1. The own loss of a batch is divided by it:
            on average it is then the mean over the labelled ones, and still a sum over samples, so that parts of a
            batch, in one process or several, add up to the same.
    """

    NAME = "auxiliary_head"

    def __init__(self, settings: LossSettings, *, smoothing: float = 0.0, classes: int, labelled: float = 1.0) -> None:
        super().__init__(settings, smoothing=smoothing)
        self.classes, self.labelled = classes, labelled
        self._hook: RemovableHandle | None = None
        self._told_BT: Tensor | None = None

    def prepare(self, model: nn.Module) -> None:
        """Add the second head to `model`; it runs in training mode only.

        Raises:
            TrainingError: the model has no single linear classifier to put it beside.
        """
        classifier = single_classifier(model)
        weight = classifier.weight
        assert isinstance(weight, Tensor)
        head = nn.Linear(weight.shape[1], self.classes).to(weight.device)
        model.add_module(self.NAME, head)

        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module.training:
                self._told_BT = head(inputs[0].flatten(1))

        self._hook = classifier.register_forward_pre_hook(look)

    def finish(self, model: nn.Module) -> None:
        """Drop the second head."""
        assert self._hook is not None
        self._hook.remove()
        delattr(model, self.NAME)

    def targets(self, batch: Batch) -> Targets:
        """Stored targets for the second head, hard labels for the first."""
        assert isinstance(batch.targets, SparseTargets)
        assert batch.labels is not None
        return Targets(soft=batch.targets, hard=batch.labels)

    def loss(self, logits_BC: Tensor, targets: Targets) -> Tensor:
        """Mean / `labelled` on the own head, where samples without a label count 0, + weight x mean on the second."""
        assert targets.soft is not None and targets.hard is not None
        assert self._told_BT is not None, "the model has not run in training mode"
        told_BT, self._told_BT = self._told_BT, None
        own = self.hard_loss(logits_BC, sparse(targets.hard, logits_BC.shape[1])).mean() / self.labelled
        auxiliary = self.soft_loss(told_BT, targets.soft, None).mean()
        return own + self.settings.auxiliary_weight * auxiliary


def single_classifier(model: nn.Module) -> nn.Linear | nn.Conv2d:
    """The last layer of a timm model.

    Raises:
        TrainingError: it has none, or several.
    """
    getter = getattr(model, "get_classifier", None)
    classifier = getter() if getter is not None else None
    if not isinstance(classifier, nn.Linear | nn.Conv2d):
        raise TrainingError(
            f"{type(model).__name__}: --head auxiliary needs a model with one linear classifier "
            f"(this one has {type(classifier).__name__}); choose another --model, or --head own"
        )
    return classifier


def dense_targets(probabilities_BC: Tensor) -> SparseTargets:
    """All C probabilities as targets with K = C."""
    count, classes = probabilities_BC.shape
    ids_BC = torch.arange(classes, device=probabilities_BC.device).expand(count, classes)
    return SparseTargets(
        values=probabilities_BC, ids=ids_BC, rest=torch.zeros_like(probabilities_BC[:, 0]), classes=classes
    )


def mass(hard: SparseTargets) -> Tensor:
    """1 where a sample has a hard label, 0 where it has none, `[B]`."""
    return (hard.values.sum(dim=1) + hard.rest > 0).float()


def sparse(hard: SparseTargets | Tensor, classes: int) -> SparseTargets:
    """Hard labels of either form as targets."""
    return one_hot(hard, classes) if isinstance(hard, Tensor) else hard


def only_class(hard: SparseTargets | Tensor) -> Tensor:
    """The class of each hard label, int64 `[B]`; -1 where there is none, or views of two classes are mixed."""
    if isinstance(hard, Tensor):
        return hard
    return torch.where(hard.values.amax(dim=1) == 1, likeliest(hard), -1)


def likeliest(targets: SparseTargets) -> Tensor:
    """The class of the largest mass, int64 `[B]`; -1 where there is none."""
    best_B = targets.ids.gather(1, targets.values.argmax(dim=1, keepdim=True))[:, 0]
    return torch.where(mass(targets) > 0, best_B, -1)

"""What a person may choose about a training. No torch in here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from buttress.errors import SettingsError

Precision = Literal["auto", "fp32", "bf16", "fp16", "fastest"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]

SCRATCH_LR = 1e-3
FINE_TUNING_LR = 1e-4


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"{name} = {value}: {wanted}")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How gradients become steps.

    Args:
        name: an optimizer of timm (`timm.optim.list_optimizers()`), e.g. adamw or sgd.
        weight_decay: 0 and up; biases and norm layers are spared.
        momentum: 0..1; only for the optimizers that have one.
        clip_grad: largest norm of the gradient; none = not clipped.
    """

    name: str = "adamw"
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip_grad: float | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.weight_decay < math.inf, "optimizer.weight_decay", self.weight_decay, "must be 0 or more")
        _require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "must be at least 0 and below 1")
        clip = self.clip_grad
        _require(clip is None or 0 < clip < math.inf, "optimizer.clip_grad", clip, "must be above 0")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How the learning rate changes, update by update.

    Args:
        name: cosine (down to `min_lr`) or constant.
        warmup: share of all updates, 0..1, over which the rate rises linearly, from the first update on.
        min_lr: the rate that cosine ends at.
    """

    name: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        _require(self.name in ("cosine", "constant"), "schedule.name", self.name, "must be cosine or constant")
        _require(0 <= self.warmup <= 1, "schedule.warmup", self.warmup, "is a share of all updates, 0..1")
        _require(0 <= self.min_lr < math.inf, "schedule.min_lr", self.min_lr, "must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What a step minimises.

    Args:
        name: kl, ce (kl plus the entropy of the target), nkd (arXiv 2303.13005) or bce (a two-way choice per class).
        hard_weight: 0..1; the share of a sample's own hard label beside its soft target.
        truth_floor: 0..1; a view whose own class the teacher gives less than this uses its hard label alone. 0 = off.
        gamma: 0 and up; weight of the other classes in nkd.
        auxiliary_weight: 0 and up; weight of the second head's loss with --head auxiliary.
    """

    name: Literal["kl", "ce", "nkd", "bce"] = "kl"
    hard_weight: float = 0.0
    truth_floor: float = 0.0
    gamma: float = 1.5
    auxiliary_weight: float = 1.0

    def __post_init__(self) -> None:
        _require(self.name in ("kl", "ce", "nkd", "bce"), "loss.name", self.name, "must be kl, ce, nkd or bce")
        for name in ("hard_weight", "truth_floor"):
            _require(0 <= getattr(self, name) <= 1, f"loss.{name}", getattr(self, name), "must lie in 0..1")
        for name in ("gamma", "auxiliary_weight"):
            _require(0 <= getattr(self, name) < math.inf, f"loss.{name}", getattr(self, name), "must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a step is computed, and what is kept on the way.

    Args:
        micro_batch: most images that a process runs at once; an update adds up their gradients. None = all of its own.
        ema_decay: at least 0, below 1; above 0 the run's weights are their exponential moving average.
        channels_last: memory format of the model; faster for convolutions.
        compile: by torch.compile, where there is a compiler.
        deterministic: only algorithms that give the same bits again on a GPU; a CPU does so anyway.
        checkpoint_every: epochs between checkpoints; the last epoch always has one.
        checkpoint_minutes: minutes between checkpoints inside an epoch; 0 = after every update.
        trackers: tensorboard, wandb or mlflow; metrics.jsonl is always written.
        views_per_decode: views of an image from one decode, shown in so many epochs. Faster where decoding is the
            bottleneck; takes about 2 GiB of memory, over all processes, and more of large batches.
    """

    micro_batch: int | None = None
    ema_decay: float = 0.0
    channels_last: bool = True
    compile: bool = False
    deterministic: bool = False
    checkpoint_every: int = 1
    checkpoint_minutes: float = 15.0
    trackers: list[Tracker] = field(default_factory=list)
    views_per_decode: int = 1

    def __post_init__(self) -> None:
        micro = self.micro_batch
        _require(micro is None or micro >= 1, "engine.micro_batch", micro, "must be at least 1")
        _require(0 <= self.ema_decay < 1, "engine.ema_decay", self.ema_decay, "must be at least 0 and below 1")
        _require(self.checkpoint_every >= 1, "engine.checkpoint_every", self.checkpoint_every, "must be at least 1")
        minutes = self.checkpoint_minutes
        _require(0 <= minutes < math.inf, "engine.checkpoint_minutes", minutes, "must be 0 or more")
        views = self.views_per_decode
        _require(views >= 1, "engine.views_per_decode", views, "must be at least 1")
        for tracker in self.trackers:
            _require(tracker in get_args(Tracker), "engine.trackers", tracker, "must be tensorboard, wandb or mlflow")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """A training, but for the model and the data.

    Args:
        epochs: passes over the data.
        batch: samples per update, over all processes.
        lr: peak learning rate; none = 1e-3 from scratch, 1e-4 from trained weights.
        seed: of the weights, the order and the views.
        precision: fp32, bf16, fp16 (on a GPU), or auto: bf16 on a GPU that has it, else fp32. fastest: on a CPU the
            precision and memory format in which a step of this model is fastest, measured at the start.
        label_smoothing: 0..1, for hard labels only.
        workers: processes that prepare batches.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
    """

    epochs: int = 50
    batch: int = 64
    lr: float | None = None
    seed: int = 0
    precision: Precision = "auto"
    label_smoothing: float = 0.0
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    workers: int = 2
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "evaluate_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        _require(self.workers >= 0, "workers", self.workers, "must be 0 or more")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "must be 0 or more, and below 2^63")
        _require(
            self.precision in get_args(Precision),
            "precision",
            self.precision,
            "must be auto, fp32, bf16, fp16 or fastest",
        )
        _require(
            0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "must be at least 0 and below 1"
        )
        _require(self.lr is None or 0 < self.lr < math.inf, "lr", self.lr, "must be above 0")

    def without_smoothing(self) -> TrainingSettings:
        """The same for soft targets."""
        return replace(self, label_smoothing=0.0)

    def for_hard_labels(self) -> TrainingSettings:
        """The same without what only soft targets know."""
        return replace(self, loss=LossSettings(name="bce" if self.loss.name == "bce" else "kl"))

    def resolved(self, *, pretrained: bool) -> TrainingSettings:
        """The same with the learning rate filled in."""
        if self.lr is not None:
            return self
        return replace(self, lr=FINE_TUNING_LR if pretrained else SCRATCH_LR)

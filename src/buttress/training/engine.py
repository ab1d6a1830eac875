"""The training loop: one process, through Accelerate. It names no method and no kind of model or target."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.utils import parametrize

from buttress.errors import TrainingError
from buttress.loading.targets import Batch
from buttress.metrics.evaluate import evaluate_model
from buttress.metrics.intervals import Figure
from buttress.models.normalise import normalise
from buttress.models.preprocessing import Preprocessing
from buttress.terminal import Progress, note, progress
from buttress.training.checkpoints import load_checkpoint, newest_checkpoint, require_same_settings, save_checkpoint
from buttress.training.objectives import Objective, TargetObjective, Targets
from buttress.training.optim import carry_over, create_optimizer, learning_rate, plain_groups, set_learning_rate
from buttress.training.settings import TrainingSettings
from buttress.weights.method import Method

SHOWN_IDS = 8


class Loader(Protocol):
    """Batches of an epoch; at most `steps_per_epoch` of them."""

    @property
    def steps_per_epoch(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    def __iter__(self) -> Iterator[Batch]: ...


class RunFolder(Protocol):
    """What the engine needs of a run."""

    @property
    def path(self) -> Path: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    def append_metrics(self, line: dict[str, Any], /) -> None: ...
    def save_weights(self, state_dict: dict[str, Tensor], /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """One epoch: its number from 1, updates so far, mean loss, last learning rate, seconds, figures on the val data."""

    epoch: int
    step: int
    loss: float
    lr: float
    seconds: float
    val: dict[str, Figure] | None


@dataclass(slots=True)
class History:
    """What happened: every epoch, also those before a resume; the loss of every update since this start."""

    epochs: list[EpochResult] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Call it before the model's weights are drawn."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def fit(
    module: nn.Module,
    loader: Loader,
    settings: TrainingSettings,
    *,
    run: RunFolder,
    methods: tuple[Method, ...] = (),
    objective: Objective | None = None,
    val_loader: Loader | None = None,
    resume: bool = False,
) -> History:
    """Train `module` in place; the last epoch is what counts. Its state goes to `run`.

    With the same seed, settings and data a CPU gives the same bits, also after a resume.

    Args:
        module: the plain model with its weights loaded; images float32 [B, 3, H, W] -> logits [B, C].
        loader: training batches.
        settings: an empty learning rate counts as "from scratch".
        run: where weights, metrics and checkpoints go.
        methods: what to do to the model while it trains, in this order.
        objective: what a step minimises; none = the targets of the batches by the loss of the settings.
        val_loader: batches with hard labels, scored as `evaluate_every` says.
        resume: go on from the newest whole checkpoint of the run; from the start where there is none.

    Raises:
        TrainingError: the loss is not finite; nothing to train on; a checkpoint of other settings or another model; or
            there are checkpoints and `resume` is false.
    """
    require_batches(loader, settings)
    settings = replace(settings.resolved(pretrained=False), precision=resolve_precision(settings.precision))
    if objective is None:
        objective = TargetObjective(settings.loss, smoothing=settings.label_smoothing)
    engine = _Engine(module, loader, settings, run, methods, objective)
    history = History()
    history.epochs += engine.restore(resume)
    done, total = len(history.epochs), settings.epochs * loader.steps_per_epoch
    with progress("training", total, "steps") as bar:
        bar.advance(done * loader.steps_per_epoch)
        for epoch in range(done, settings.epochs):
            result = engine.epoch(epoch, history, bar, val_loader)
            history.epochs.append(result)
            run.append_metrics(asdict(result))
            if _due(epoch, settings.checkpoint_every, settings.epochs):
                engine.save(history)
    engine.finish()
    return history


def require_batches(loader: Loader, settings: TrainingSettings) -> None:
    """Raises: TrainingError, where there is nothing to train on."""
    if loader.steps_per_epoch < 1:
        raise TrainingError(f"no full batch of {settings.batch} images to train on; lower --batch or add images")


def resolve_precision(asked: Literal["auto", "fp32", "bf16"]) -> Literal["fp32", "bf16"]:
    """`auto` is bf16 on a GPU that multiplies it itself, else fp32; anything else stays."""
    if asked != "auto":
        return asked
    # Without this argument torch counts a GPU that only emulates bf16, many times slower than fp32.
    native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


def _due(epoch: int, every: int, epochs: int) -> bool:
    return (epoch + 1) % every == 0 or epoch + 1 == epochs


class _Engine:
    """Model, optimizer and the step."""

    def __init__(
        self,
        module: nn.Module,
        loader: Loader,
        settings: TrainingSettings,
        run: RunFolder,
        methods: tuple[Method, ...],
        objective: Objective,
    ) -> None:
        assert settings.lr is not None
        self.module, self.loader, self.settings, self.run, self.methods = module, loader, settings, run, methods
        self.objective = objective
        self.peak, self.total_steps = settings.lr, settings.epochs * loader.steps_per_epoch
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.accelerator = _accelerator(settings.precision)
        groups = plain_groups(module, settings.optimizer.weight_decay)
        for method in methods:
            method.prepare(module)
        objective.prepare(module)
        if settings.channels_last:
            module.to(memory_format=torch.channels_last)
        module.to(self.accelerator.device)
        self.plain_optimizer = create_optimizer(carry_over(groups, module), settings.optimizer, settings.lr)
        self.model, self.optimizer = self.accelerator.prepare(module, self.plain_optimizer)
        self.once_a_pass = parametrize.cached if methods else nullcontext

    def epoch(self, epoch: int, history: History, bar: Progress, val_loader: Loader | None) -> EpochResult:
        """Train epoch number `epoch` (from 0) and evaluate where that is due."""
        started = time.perf_counter()
        losses = _Losses(history.step_losses[-1] if history.step_losses else math.nan)
        first = epoch * self.loader.steps_per_epoch
        self.module.train()
        self.loader.set_epoch(epoch)
        for step, batch in enumerate(self.loader, first):
            losses.add(self.step(batch, step), step, batch.ids)
            bar.advance()
            bar.update(f"epoch {epoch + 1}/{self.settings.epochs}  loss {losses.last:.4f}  lr {self.lr(step):.2e}")
        mean = losses.mean(epoch)
        history.step_losses += losses.values
        seconds = time.perf_counter() - started
        last = first + self.loader.steps_per_epoch - 1
        val = self.evaluate(epoch, val_loader)
        return EpochResult(epoch=epoch + 1, step=last + 1, loss=mean, lr=self.lr(last), seconds=seconds, val=val)

    def lr(self, step: int) -> float:
        return learning_rate(step, self.total_steps, self.peak, self.settings.schedule)

    def step(self, batch: Batch, step: int) -> Tensor:
        """One update; returns the summed loss, 0-d on the device, without waiting for it."""
        for method in self.methods:
            method.before_step(step, self.total_steps, self.generator)
        batch = batch.to(self.accelerator.device, non_blocking=True)
        targets = self.objective.targets(batch)
        set_learning_rate(self.plain_optimizer, self.lr(step))
        loss = self.backward(normalise(batch.images, self.run.preprocessing), targets, step)
        if self.settings.optimizer.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.optimizer.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def backward(self, images_BCHW: Tensor, targets: Targets, step: int) -> Tensor:
        """Gradients of all passes and auxiliary losses, summed. The cache ends with a pass: coordinates then move."""
        total = torch.zeros((), device=images_BCHW.device)
        for moves in itertools.product(*(method.passes(step) for method in self.methods)):
            for move in moves:
                move()
            with self.once_a_pass(), _batch_large_enough(step, len(images_BCHW)):
                loss = self.objective.loss(self.model(images_BCHW), targets)
            self.accelerator.backward(loss)
            total += loss.detach()
        for method in self.methods:
            auxiliary = method.auxiliary_loss(self.module)
            if auxiliary is not None:
                self.accelerator.backward(auxiliary)
                total += auxiliary.detach()
        return total

    def evaluate(self, epoch: int, val_loader: Loader | None) -> dict[str, Figure] | None:
        """Figures on the val data where they are due. The methods are told also before the last weights are saved."""
        due = _due(epoch, self.settings.evaluate_every, self.settings.epochs)
        if due and (val_loader is not None or epoch + 1 == self.settings.epochs):
            for method in self.methods:
                method.before_evaluation(self.loader)
        if not due or val_loader is None:
            return None
        assert self.run.classes is not None, "val data has class names"
        with _without_autocast(self.module):
            evaluation = evaluate_model(
                self.module, val_loader, preprocessing=self.run.preprocessing, classes=self.run.classes
            )
        return evaluation.figures

    def restore(self, resume: bool) -> list[EpochResult]:
        """The epochs that a checkpoint already has; its state is loaded."""
        folder = self.run.path / "checkpoints"
        found = newest_checkpoint(folder)
        if found is None:
            if resume:
                note(f"{folder}: no whole checkpoint, training starts at the first epoch")
            return []
        path, state = found
        if not resume:
            raise TrainingError(
                f"{folder}: holds checkpoints of an earlier training; add --resume, or choose a new --out"
            )
        require_same_settings(path, state["settings"], self.identity())
        load_checkpoint(path, state, model=self.module, optimizer=self.plain_optimizer, generator=self.generator)
        return [EpochResult(**line) for line in state["history"]]

    def identity(self) -> dict[str, Any]:
        """What must be the same for a resume."""
        return {**asdict(self.settings), "steps_per_epoch": self.loader.steps_per_epoch}

    def save(self, history: History) -> None:
        save_checkpoint(
            self.run.path / "checkpoints",
            epoch=len(history.epochs),
            model=self.module,
            optimizer=self.plain_optimizer,
            generator=self.generator,
            settings=self.identity(),
            history=[asdict(result) for result in history.epochs],
        )

    def finish(self) -> None:
        """Hand the trained state to the run and the module back as it came, in evaluation mode."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.module.__dict__.pop("forward", None)
        self.objective.finish(self.module)
        self.module.eval()
        self.run.save_weights(self.module.state_dict())


class _Losses:
    """Losses of an epoch, each read one step late, so that the host never waits for the device."""

    def __init__(self, before: float) -> None:
        self.values: list[float] = []
        self._before = before
        self._pending: tuple[Tensor, int, tuple[str, ...]] | None = None

    @property
    def last(self) -> float:
        """The newest that is known, from the epoch before where this one has none yet."""
        return self.values[-1] if self.values else self._before

    def add(self, loss: Tensor, step: int, ids: tuple[str, ...]) -> None:
        self._read()
        self._pending = (loss, step, ids)

    def mean(self, epoch: int) -> float:
        """Mean over the epoch's updates."""
        self._read()
        if not self.values:
            raise TrainingError(f"epoch {epoch + 1}: no image could be read; look at the warnings above")
        return math.fsum(self.values) / len(self.values)

    def _read(self) -> None:
        if self._pending is None:
            return
        loss, step, ids = self._pending
        self._pending = None
        value = loss.item()
        if not math.isfinite(value):
            more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
            shown = ", ".join(ids[:SHOWN_IDS])
            raise TrainingError(
                f"step {step}: the loss is {value} on {shown}{more}; lower --lr, or look at these images"
            )
        self.values.append(value)


@contextmanager
def _batch_large_enough(step: int, count: int) -> Iterator[None]:
    """Say what to do where batch normalisation has one value per channel: one image whose map is 1 x 1 by then."""
    try:
        yield
    except ValueError as failure:
        if "Expected more than 1 value per channel" not in str(failure):
            raise
        raise TrainingError(
            f"step {step}: a batch of {count} image is too small for this model's batch normalisation; raise --batch "
            "or --size, or add images (an image that cannot be decoded makes its batch smaller)"
        ) from failure


def _accelerator(precision: str) -> Accelerator:
    """An Accelerator for one process."""
    mixed = "bf16" if precision == "bf16" else "no"
    # All instances in a process share one state, which refuses another precision than its first; there is no public
    # way to change it. One that fits is left alone: it may be that of the program that calls us.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed:
        AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=mixed)
    if accelerator.num_processes > 1:
        raise TrainingError(
            f"training runs in one process, not {accelerator.num_processes}; start it without a launcher"
        )
    return accelerator


@contextmanager
def _without_autocast(module: nn.Module) -> Iterator[None]:
    """Accelerate replaces `module.forward` by one that runs in bf16; evaluation is in fp32."""
    replaced = module.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if replaced is not None:
            module.forward = replaced

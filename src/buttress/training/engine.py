"""The training loop, in one process or several, through Accelerate. It names no method and no kind of model or target.

The order of samples, the schedule, the accumulation window and every draw are ours and pure functions of (seed, epoch,
step), so a training may stop after any update and go on with another number of processes. Of Accelerate it uses the
device, mixed precision, the gradients' average over processes, and the trackers.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import GradientAccumulationPlugin, broadcast
from torch import Tensor, nn
from torch.nn.utils import parametrize

from buttress.errors import SettingsError, TrainingError
from buttress.loading.schedule import Share
from buttress.loading.targets import Batch
from buttress.metrics.evaluate import figures_of, predictions
from buttress.metrics.intervals import Figure
from buttress.models.normalise import normalise
from buttress.models.preprocessing import Preprocessing
from buttress.terminal import Progress, note, progress
from buttress.training.checkpoints import (
    Place,
    TrainingState,
    load_checkpoint,
    newest_checkpoint,
    require_same_optimizer,
    require_same_settings,
    save_checkpoint,
)
from buttress.training.compute import batch_large_enough, compiled, deterministic, resolve_precision, without_autocast
from buttress.training.ema import Ema
from buttress.training.history import EpochLosses, EpochResult, History, StepLoss
from buttress.training.objectives import Objective, TargetObjective
from buttress.training.optim import carry_over, create_optimizer, learning_rate, plain_groups, set_learning_rate
from buttress.training.rng import StepRng
from buttress.training.settings import TrainingSettings
from buttress.training.stops import Termination, TrainingStoppedError, memory_advice, termination
from buttress.training.trackers import PROJECT, flat, require_trackers, scalars
from buttress.weights.method import Method


class Loader(Protocol):
    """Batches of an epoch, one for each of its `steps_per_epoch` steps; of several processes, this one's slices."""

    @property
    def steps_per_epoch(self) -> int: ...
    def set_epoch(self, epoch: int, first_step: int = 0) -> None: ...
    def __iter__(self) -> Iterator[Batch]: ...


class TrainingLoader(Loader, Protocol):
    """Batches to train on; between epochs `pass_over` gives those of one by the side, and changes none that come."""

    def pass_over(self, epoch: int) -> Iterator[Batch]: ...


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


def share() -> Share:
    """Which of how many processes this is: one, or those that `torchrun` started.

    Raises:
        TrainingError: several were asked for, and they do not find one another.
    """
    state, asked = PartialState(**_device()), int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != asked:
        raise TrainingError(
            f"{asked} processes were started and Accelerate sees {state.num_processes}; start them by "
            f"torchrun --nproc_per_node {asked} -m buttress train ..."
        )
    return Share(rank=state.process_index, world=state.num_processes)


def _device() -> dict[str, bool]:
    """Accelerate sees several processes on CPUs only where it is told that these are meant."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return {"cpu": True} if several and not torch.accelerator.is_available() else {}


def fit(
    module: nn.Module,
    loader: TrainingLoader,
    settings: TrainingSettings,
    *,
    run: RunFolder,
    methods: tuple[Method, ...] = (),
    objective: Objective | None = None,
    val_loader: Loader | None = None,
    resume: bool = False,
    other_settings: bool = False,
    begin: Callable[[], None] | None = None,
) -> History:
    """Train `module` in place; the last epoch is what counts. Its state goes to `run`.

    With the same seed, settings and data a CPU gives the same bits, also after a resume from any step. Several
    processes see the global batches that one process would; sums differ in the last bits, and each process has its own
    batch statistics, of which the first one's count, and its own draws in the model (dropout).

    Args:
        module: the plain model with its weights loaded; images float32 [B, 3, H, W] -> logits [B, C].
        loader: training batches.
        settings: an empty learning rate counts as "from scratch".
        run: where weights, metrics and checkpoints go; the first process writes them.
        methods: what to do to the model while it trains, in this order.
        objective: what a step minimises; none = the targets of the batches by the loss of the settings.
        val_loader: batches with hard labels, scored as `evaluate_every` says.
        resume: go on from the newest whole checkpoint of the run; from the start where there is none.
        other_settings: go on also where the checkpoint was made with other settings; these count.
        begin: called once when all is ready and nothing more can be refused, before the first step.

    Raises:
        TrainingError: the loss is not finite; nothing to train on; out of memory; a checkpoint of other settings or
            another model; or there are checkpoints and `resume` is false.
        TrainingStoppedError: the process was asked to end (SIGTERM); a checkpoint of its last update is there.
    """
    require_batches(loader, settings)
    settings = replace(settings.resolved(pretrained=False), precision=resolve_precision(settings.precision))
    if objective is None:
        objective = TargetObjective(settings.loss, smoothing=settings.label_smoothing)
    with deterministic(settings.engine.deterministic), termination() as asked:
        engine = _Engine(module, loader, settings, run, methods, objective, asked)
        place = engine.restore(resume, other_settings)
        if begin is not None:
            begin()
        history = History(epochs=[EpochResult(**line) for line in place.history])
        with engine.trackers(), progress("training", engine.total_steps, "steps") as bar:
            bar.advance(place.epoch * loader.steps_per_epoch + place.step)
            for epoch in range(place.epoch, settings.epochs):
                engine.epoch(epoch, place, history, bar, val_loader)
            engine.finish()
    return history


def require_batches(loader: Loader, settings: TrainingSettings) -> None:
    """Raises: TrainingError, where there is nothing to train on."""
    if settings.batch < share().world:
        raise SettingsError(f"batch = {settings.batch}: less than one image for each of {share().world} processes")
    if loader.steps_per_epoch < 1:
        raise TrainingError(f"no full batch of {settings.batch} images to train on; lower --batch or add images")


def _due(epoch: int, every: int, epochs: int) -> bool:
    return (epoch + 1) % every == 0 or epoch + 1 == epochs


class _Engine:
    """Model, optimizer and the step."""

    def __init__(
        self,
        module: nn.Module,
        loader: TrainingLoader,
        settings: TrainingSettings,
        run: RunFolder,
        methods: tuple[Method, ...],
        objective: Objective,
        asked_to_end: Termination,
    ) -> None:
        assert settings.lr is not None
        self.module, self.loader, self.settings, self.run, self.methods = module, loader, settings, run, methods
        self.objective, self.asked_to_end, self.saved_at = objective, asked_to_end, time.monotonic()
        self.peak, self.total_steps = settings.lr, settings.epochs * loader.steps_per_epoch
        self.accelerator = _accelerator(settings, run.path)
        self.share = share()
        self.rng = StepRng(settings.seed, self.share.rank)
        groups = plain_groups(module, settings.optimizer.weight_decay)
        plain_buffers = frozenset(name for name, _ in module.named_buffers())
        for method in methods:
            method.prepare(module)
        objective.prepare(module)
        if settings.engine.channels_last:
            module.to(memory_format=torch.channels_last)
        module.to(self.accelerator.device)
        self.average = Ema(module, plain_buffers, settings.engine.ema_decay) if settings.engine.ema_decay else None
        self.plain_optimizer = create_optimizer(carry_over(groups, module), settings.optimizer, settings.lr)
        self.model, self.optimizer = self.accelerator.prepare(module, self.plain_optimizer)
        self.forward = compiled(self.model, methods=bool(methods)) if settings.engine.compile else self.model
        self.once_a_pass = parametrize.cached if methods else nullcontext

    @contextmanager
    def trackers(self) -> Iterator[None]:
        """The trackers that were asked for, told the settings, and ended whatever comes."""
        if self.settings.engine.trackers:
            self.accelerator.init_trackers(PROJECT, config=flat(asdict(self.settings)))
        try:
            yield
        finally:
            for tracker in self.accelerator.trackers:  # not end_training: it ends the process group too
                tracker.finish()

    def epoch(self, epoch: int, place: Place, history: History, bar: Progress, val_loader: Loader | None) -> None:
        """Train what is left of epoch number `epoch` (from 0), evaluate and save where that is due."""
        started, per_epoch = time.perf_counter(), self.loader.steps_per_epoch
        done, known = (place.step, place.losses) if epoch == place.epoch else (0, [])
        losses = EpochLosses(known, history.step_losses[-1] if history.step_losses else math.nan)
        first = epoch * per_epoch
        self.module.train()
        self.loader.set_epoch(epoch, done)
        for step, batch in enumerate(self.loader, first + done):
            told = self.step(batch, step)
            bar.advance()
            if told is not None:
                losses.add(told, step, batch.ids)
                bar.update(f"epoch {epoch + 1}/{self.settings.epochs}  loss {losses.last:.4f}{_shown(history.top1())}")
            self._save_inside(epoch, step + 1 - first, losses, history)
        mean = losses.mean(epoch)
        self._save_inside(epoch, per_epoch, losses, history)
        history.step_losses += losses.values[len(known) :]
        seconds, last = time.perf_counter() - started, first + per_epoch - 1
        val = self.evaluate(epoch, val_loader)
        result = EpochResult(epoch=epoch + 1, step=last + 1, loss=mean, lr=self.lr(last), seconds=seconds, val=val)
        history.epochs.append(result)
        self.tell(result)
        if _due(epoch, self.settings.engine.checkpoint_every, self.settings.epochs):
            self.save(epoch + 1, 0, [], history)

    def lr(self, step: int) -> float:
        return learning_rate(step, self.total_steps, self.peak, self.settings.schedule)

    def step(self, batch: Batch, step: int) -> StepLoss | None:
        """One update; says its loss without waiting for the device. None where there is not one image to learn from."""
        if not batch.ids:
            self._require_alone(step)
            return None
        self.rng.seed(step)
        for method in self.methods:
            method.before_step(step, self.total_steps, self.rng.generator)
        set_learning_rate(self.plain_optimizer, self.lr(step))
        with memory_advice(step, min(self.settings.engine.micro_batch or len(batch.ids), len(batch.ids))):
            loss = self.gradients(batch, step)
            if self.settings.optimizer.clip_grad is not None:
                self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.optimizer.clip_grad)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average is not None:
                self.average.update(step)
        return self._told(loss)

    def gradients(self, batch: Batch, step: int) -> Tensor:
        """Gradients of all passes over all micro-batches, and of the auxiliary losses, summed; the loss of a mean pass.

        A micro-batch counts by its share of the global batch. The cache ends with a pass: coordinates then move.
        """
        total = torch.zeros((), device=self.accelerator.device)
        whole = self._images_of_all(len(batch.ids))
        micro_batches = batch.parts(self.settings.engine.micro_batch)
        passes = list(itertools.product(*(method.passes(step) for method in self.methods)))
        for number, part in enumerate(micro_batches, 1):
            part = part.to(self.accelerator.device, non_blocking=True)
            targets = self.objective.targets(part)
            images = normalise(part.images, self.run.preprocessing)
            weight = len(part.ids) / whole
            for place, moves in enumerate(passes, 1):
                last = number == len(micro_batches) and place == len(passes)
                with nullcontext() if last else self.accelerator.no_sync(self.model):
                    with self.once_a_pass(), batch_large_enough(step, len(images)):
                        for move in moves:
                            move()
                        loss = self.objective.loss(self.forward(images), targets) * weight
                        total += loss.detach() / len(passes)
                        for auxiliary in self._auxiliary_losses() if last else ():
                            total += auxiliary.detach()
                            loss = loss + auxiliary
                    self.accelerator.backward(loss)
        return total

    def _auxiliary_losses(self) -> list[Tensor]:
        """Of all methods; the same in every process, so that averaging over processes leaves their gradients alone."""
        found = [method.auxiliary_loss(self.module) for method in self.methods]
        return [loss for loss in found if loss is not None]

    def _images_of_all(self, count: int) -> int | Tensor:
        """Images of the global batch as seen from one process of several: gradients are averaged over processes."""
        if self.share.world == 1:
            return count
        counts = torch.tensor([float(count)], device=self.accelerator.device)
        mean: Tensor = self.accelerator.reduce(counts, "mean")[0]
        return mean

    def _require_alone(self, step: int) -> None:
        if self.share.world > 1:
            raise TrainingError(
                f"step {step}: not one image of process {self.share.rank} can be decoded, and the others wait for it; "
                "repair or remove these images, or raise --batch"
            )

    def _told(self, loss: Tensor) -> StepLoss:
        """The loss over all processes, and whether one of them was asked to end; read a step later."""
        if self.share.world == 1:
            return StepLoss(loss, loss, None)
        asked = torch.full_like(loss, float(self.asked_to_end.asked))
        both = self.accelerator.reduce(torch.stack([loss, asked]), "mean")
        return StepLoss(both[0], loss, both[1])

    def _save_inside(self, epoch: int, done: int, losses: EpochLosses, history: History) -> None:
        """Before an epoch is scored: save where the time has come, and where the process is to end.

        Raises:
            TrainingStoppedError: it is to end.
        """
        stop = self.asked_to_end.asked if self.share.world == 1 else losses.asked_to_end
        due = time.monotonic() - self.saved_at >= 60 * self.settings.engine.checkpoint_minutes
        if not (stop or (due and done < self.loader.steps_per_epoch)):
            return
        self.save(epoch, done, losses.read(), history)
        if not stop:
            return
        self.accelerator.wait_for_everyone()  # or the first process is ended while it saves
        raise TrainingStoppedError(
            f"{self.run.path}: asked to end; saved after {done} of {self.loader.steps_per_epoch} steps of epoch "
            f"{epoch + 1}; the same command goes on, with --resume"
        )

    def evaluate(self, epoch: int, val_loader: Loader | None) -> dict[str, Figure] | None:
        """Figures on the val data where they are due. The methods are told also before the last weights are saved."""
        due = _due(epoch, self.settings.evaluate_every, self.settings.epochs)
        if not due or (val_loader is None and (epoch + 1 < self.settings.epochs or self.average is not None)):
            return None
        last = epoch + 1 == self.settings.epochs and self.average is None
        with self._borrowed(last), without_autocast(self.module):
            self._ready_to_evaluate(epoch, last=last)
            if val_loader is None:
                return None
            assert self.run.classes is not None, "val data has class names"
            said = predictions(
                self.module, val_loader, preprocessing=self.run.preprocessing, classes=len(self.run.classes)
            )
        return figures_of(self._of_all(said.logits_NC).numpy(), self._of_all(said.labels_N).numpy())

    @contextmanager
    def _borrowed(self, last: bool) -> Iterator[None]:
        """While the model is scored it has the average's state, and what methods change of it does not stay: how often
        a training is scored must not change it."""
        if self.average is not None:
            with self.average.in_place():
                yield
            return
        kept = {} if last or not self.methods else {n: b.clone() for n, b in self.module.named_buffers()}
        yield
        buffers = dict(self.module.named_buffers())
        for name, value in kept.items():
            buffers[name].copy_(value)

    def _ready_to_evaluate(self, epoch: int, *, last: bool) -> None:
        for method in self.methods:
            method.before_evaluation(self.module, _TrainingImages(self, epoch), last=last)
        if self.share.world > 1:  # each has statistics of its own slices; the first one's are those that are saved
            for buffer in self.module.buffers():
                buffer.copy_(broadcast(buffer.contiguous()))

    def _of_all(self, rows_NX: Tensor) -> Tensor:
        """The rows of all processes, one process after the other."""
        if self.share.world == 1:
            return rows_NX
        rows_NX = rows_NX.to(self.accelerator.device)
        counts = self.accelerator.gather(torch.tensor([len(rows_NX)], device=rows_NX.device)).tolist()
        padded = self.accelerator.gather(self.accelerator.pad_across_processes(rows_NX))
        parts = padded.split(max(counts))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).cpu()

    def tell(self, result: EpochResult) -> None:
        """One line of metrics.jsonl, and the trackers."""
        if self.share.rank == 0:
            self.run.append_metrics(asdict(result))
        if self.settings.engine.trackers:
            self.accelerator.log(scalars(result), step=result.step)

    def restore(self, resume: bool, other_settings: bool) -> Place:
        """Where to go on; the state of the newest whole checkpoint is loaded."""
        folder = self.run.path / "checkpoints"
        found = newest_checkpoint(folder)
        if found is None:
            if resume:
                note(f"{folder}: no whole checkpoint, training starts at the first epoch")
            return Place(epoch=0, step=0, losses=[], history=[])
        path, state = found
        if not resume:
            raise TrainingError(
                f"{folder}: holds checkpoints of an earlier training; add --resume, or choose a new --out"
            )
        if not other_settings:
            require_same_settings(path, state["settings"], self.identity)
        require_same_optimizer(path, state["settings"], self.identity)
        place = load_checkpoint(path, state, self._trained, new_settings=other_settings)
        if state["settings"].get("steps_per_epoch") == self.loader.steps_per_epoch:
            return place
        return replace(place, step=0, losses=[])  # steps of another length: the unfinished epoch begins anew

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a resume."""
        return {**asdict(self.settings), "steps_per_epoch": self.loader.steps_per_epoch}

    @property
    def _trained(self) -> TrainingState:
        return TrainingState(
            model=self.module,
            optimizer=self.plain_optimizer,
            average=None if self.average is None else self.average.shadow,
            scaler=self.accelerator.scaler,
        )

    def save(self, epoch: int, step: int, losses: list[float], history: History) -> None:
        """A checkpoint after `epoch` epochs and `step` steps of the next."""
        if self.share.rank == 0:
            self._require_finite()
            place = Place(epoch=epoch, step=step, losses=losses, history=[asdict(one) for one in history.epochs])
            updates = epoch * self.loader.steps_per_epoch + step
            save_checkpoint(
                self.run.path / "checkpoints", self._trained, place, updates=updates, settings=self.identity
            )
        self.saved_at = time.monotonic()

    def _require_finite(self) -> None:
        """A checkpoint of broken weights would end every resume."""
        for name, parameter in self.module.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingError(
                    f"{self.run.path}: {name} is not finite any more, so it is not saved; lower --lr, or clip by "
                    "--optimizer.clip_grad"
                )

    def finish(self) -> None:
        """Hand the trained state to the run and the module back as it came, in evaluation mode."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.module.__dict__.pop("forward", None)
        if self.average is not None:
            self.average.hand_over()
            self._ready_to_evaluate(self.settings.epochs - 1, last=True)
        self.objective.finish(self.module)
        self.module.eval()
        if self.share.rank == 0:
            self.run.save_weights(self.module.state_dict())
        if self.share.world > 1:
            self.accelerator.wait_for_everyone()


class _TrainingImages:
    """The images of an epoch's batches as the model takes them; every iteration begins anew."""

    def __init__(self, engine: _Engine, epoch: int) -> None:
        self.engine, self.epoch = engine, epoch

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.engine.loader.pass_over(self.epoch):
            if batch.ids:
                images_BCHW = batch.to(self.engine.accelerator.device, non_blocking=True).images
                yield normalise(images_BCHW, self.engine.run.preprocessing)


def _shown(top1: float | None) -> str:
    return "" if top1 is None else f"  top-1 {100 * top1:.1f} %"


def _accelerator(settings: TrainingSettings, folder: Path) -> Accelerator:
    """An Accelerator for the processes that there are."""
    require_trackers(settings)
    mixed = "no" if settings.precision == "fp32" else settings.precision
    # All instances in a process share one state, which refuses another precision than its first; there is no public
    # way to change it. One that fits is left alone: it may be that of the program that calls us.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed:
        AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=mixed,
        log_with=list(settings.engine.trackers) or None,
        project_dir=folder,
        # Accumulation is the engine's own; else a variable of the environment would scale every gradient.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        **_device(),
    )

"""Trainings from files of photographs, by `buttress train`'s engine and by the loop of timm's train.py, restated.

timm's: its dataset, loader with prefetcher, transforms, optimizer and cosine schedule by updates, as its script sets
them up for a CPU: loss, update, mean of the losses. Both: random resized crop and flip, bilinear; fp32, channels_last,
AdamW, one thread for the model.
"""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from buttress.loading.batches import HardBatches
from buttress.loading.loader import BatchLoader
from buttress.sources import open_source
from buttress.training.data import TrainingData
from buttress.training.settings import EngineSettings, TrainingSettings
from buttress.training.train import train_on_source
from buttress.views.presets import preset

SIZE, LR = 224, 1e-3
POLICY = preset("crop")


@timm.models.register_model
def pooled_linear(pretrained: bool = False, num_classes: int = 1000, **kwargs: Any) -> nn.Module:
    """A linear classifier on a view averaged down to 8 x 8: next to no work for a model."""
    model: Any = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, num_classes))
    model.num_classes = num_classes
    return model  # type: ignore[no-any-return]


def cpu_seconds(work: Callable[[], None]) -> float:
    """Of this process and of the children that have ended by then."""

    def used() -> float:
        gc.collect()  # ends the workers of loaders that nobody holds
        spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in spent)

    before = used()
    work()
    return used() - before


@dataclass(frozen=True)
class Asked:
    """A training: photographs in class folders, a model of timm's, images a batch, loader workers."""

    folder: Path
    model: str
    batch: int
    workers: int


def ours(asked: Asked, epochs: int, out: Path) -> None:
    """By train_on_source."""
    settings = TrainingSettings(
        epochs=epochs,
        batch=asked.batch,
        lr=LR,
        workers=asked.workers,
        precision="fp32",
        engine=EngineSettings(checkpoint_every=epochs),
    )
    data = TrainingData(source=open_source(f"folder:{asked.folder}"), policy=POLICY)
    with contextlib.redirect_stderr(io.StringIO()):
        train_on_source(data, model=f"timm:{asked.model}", out=out, settings=settings, size=SIZE)


def timms(asked: Asked, epochs: int, out: Path) -> None:
    """By timm; nothing is written to `out`."""
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader
    from timm.optim._optim_factory import create_optimizer_v2
    from timm.scheduler.scheduler_factory import create_scheduler_v2
    from timm.utils.metrics import AverageMeter

    dataset: Any = create_dataset("", root=str(asked.folder), split="", is_training=True)
    loader: Any = create_loader(
        dataset,
        input_size=(3, SIZE, SIZE),
        batch_size=asked.batch,
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        num_workers=asked.workers,
        device=torch.device("cpu"),
        persistent_workers=asked.workers > 0,
    )
    network = timm.create_model(asked.model, num_classes=len(dataset.reader.class_to_idx))
    network.to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(network, "adamw", lr=LR, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=epochs, updates_per_epoch=len(loader), step_on_epochs=False
    )
    loss_of, update = nn.CrossEntropyLoss(), 0
    for _ in range(epochs):
        losses = AverageMeter()
        for images, labels in loader:
            loss: Tensor = loss_of(network(images.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(images))
            update += 1
            schedule.step_update(num_updates=update)


def epoch_seconds(train: Callable[[Asked, int, Path], None], asked: Asked, work: Path) -> float:
    """CPU seconds of an epoch: those of three epochs less those of one, halved, so that start and end cancel."""
    one, three = (
        cpu_seconds(partial(train, asked, epochs, work.with_name(f"{work.name}-{epochs}"))) for epochs in (1, 3)
    )
    return (three - one) / 2


def loader_seconds(folder: Path, workers: int, batch: int, epochs: int) -> float:
    """Seconds on the clock for all batches of some epochs, once the workers are up."""
    batches = HardBatches(open_source(f"folder:{folder}"), POLICY, seed=0, size=SIZE)
    loader = BatchLoader(batches, batch=batch, shuffle=True, workers=workers)
    for _ in loader:
        pass
    started = time.perf_counter()
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for _ in loader:
            pass
    return time.perf_counter() - started


def busy_seconds(processes: int, rounds: int) -> float:
    """Seconds on the clock until so many processes have each done the same work, that shares nothing."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(_spin, [1] * processes)
        started = time.perf_counter()
        pool.map(_spin, [rounds] * processes, chunksize=1)
        return time.perf_counter() - started


def _spin(rounds: int) -> float:
    values = np.arange(20_000, dtype=np.float64)
    for _ in range(rounds):
        values = np.sqrt(values * values + 1.0)
    return float(values.sum())

"""Trainings from files of photographs, by `buttress train`'s engine and by the loop of timm's train.py, restated.

timm's: its dataset, loader with prefetcher, transforms, optimizer and cosine schedule by updates, as its script sets
them up for a CPU: loss, update, mean of the losses. Both: random resized crop and flip, bilinear; fp32, channels_last,
AdamW, one thread for the model.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from torch import Tensor, nn

from benchmarks.turns import Gate
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


@dataclass(frozen=True)
class Asked:
    """A training: photographs in class folders, a model of timm's, images a batch, loader workers."""

    folder: Path
    model: str
    batch: int
    workers: int


@contextlib.contextmanager
def told_of_epochs(gate: Gate) -> Iterator[None]:
    """Trainings by the engine inside call `gate` at the begin of their epochs, and write nothing to the terminal."""
    plain = BatchLoader.set_epoch

    def told(loader: BatchLoader, epoch: int, first_step: int = 0) -> None:
        gate()
        plain(loader, epoch, first_step)

    with mock.patch.object(BatchLoader, "set_epoch", told), contextlib.redirect_stderr(io.StringIO()):
        yield


def ours(asked: Asked, epochs: int, out: Path, gate: Gate) -> None:
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
    with told_of_epochs(gate):
        train_on_source(data, model=f"timm:{asked.model}", out=out, settings=settings, size=SIZE)


def timms(asked: Asked, epochs: int, gate: Gate) -> None:
    """By timm."""
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
        gate()
        losses = AverageMeter()
        for images, labels in loader:
            loss: Tensor = loss_of(network(images.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(images))
            update += 1
            schedule.step_update(num_updates=update)


class Workers:
    """Seconds on the clock for what loader workers and what other processes do, by turns; all of them are up before.

    Args:
        folder: photographs in class folders.
        batch: images a batch.
        epochs: of the images a turn.
        rounds: of arithmetic a turn and process.
    """

    def __init__(self, folder: Path, batch: int, epochs: int, rounds: int) -> None:
        batches = HardBatches(open_source(f"folder:{folder}"), POLICY, seed=0, size=SIZE)
        self._epochs, self._rounds = epochs, rounds
        self._loaders = {
            workers: BatchLoader(batches, batch=batch, shuffle=True, workers=workers) for workers in (1, 2)
        }
        context = multiprocessing.get_context("spawn")
        self._pools = {processes: context.Pool(processes) for processes in (1, 2)}
        self.share()

    def share(self) -> float:
        """What a second worker brings, of what a second process brings that shares nothing."""
        one, two = (self._loader_seconds(workers) for workers in (1, 2))
        alone, together = (self._busy_seconds(processes) for processes in (1, 2))
        return (one / two) / (2 * alone / together)

    def end(self) -> None:
        """The processes of the pools end; those of the loaders do with them."""
        for pool in self._pools.values():
            pool.terminate()

    def _loader_seconds(self, workers: int) -> float:
        started = time.perf_counter()
        for epoch in range(self._epochs):
            self._loaders[workers].set_epoch(epoch)
            for _ in self._loaders[workers]:
                pass
        return time.perf_counter() - started

    def _busy_seconds(self, processes: int) -> float:
        started = time.perf_counter()
        self._pools[processes].map(_spin, [self._rounds] * processes, chunksize=1)
        return time.perf_counter() - started


def _spin(rounds: int) -> float:
    values = np.arange(20_000, dtype=np.float64)
    for _ in range(rounds):
        values = np.sqrt(values * values + 1.0)
    return float(values.sum())

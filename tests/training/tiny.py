"""A tiny network, loader and run folder for the tests of the engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from buttress.loading.targets import Batch, SparseTargets
from buttress.models.preprocessing import Preprocessing
from buttress.training.losses import kl_divergence

CLASSES = 5


def network(seed: int = 0) -> nn.Sequential:
    """Convolution, BN and dropout: every kind of state a checkpoint must hold."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(8, CLASSES))


@dataclass
class Loader:
    """Batches of 4 that are a pure function of the epoch."""

    steps_per_epoch: int = 3
    soft: bool = True
    epochs: list[int] = field(default_factory=list)
    die_at: tuple[int, int] | None = None

    first_step: int = 0

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        self.epochs.append(epoch)
        self.first_step = first_step

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epochs[-1] if self.epochs else 0
        for step in range(self.first_step, self.steps_per_epoch):
            if self.die_at == (epoch, step):
                raise KeyboardInterrupt
            yield batch(1000 * epoch + step, self.soft)

    def pass_over(self, epoch: int) -> Iterator[Batch]:
        self.set_epoch(epoch)
        return iter(self)


def batch(seed: int, soft: bool, count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 6, 6, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    ids = tuple(f"{seed}-{i}" for i in range(count))
    if not soft:
        return Batch(images, torch.randint(0, CLASSES, (count,), generator=generator), ids)
    masses = torch.rand(count, 3, generator=generator).softmax(1)
    classes = torch.stack([torch.randperm(CLASSES, generator=generator)[:2] for _ in range(count)])
    return Batch(images, SparseTargets(values=masses[:, :2], ids=classes, rest=masses[:, 2], classes=CLASSES), ids)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    """A textbook step on a soft batch; its loss."""
    given = batch(seed, soft=True)
    assert isinstance(given.targets, SparseTargets)
    loss = kl_divergence(model((given.images.float() / 255 - 0.5) / 0.25), given.targets).mean()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


@dataclass
class Folder:
    """What the engine needs of a run."""

    path: Path
    classes: tuple[str, ...] | None = tuple("abcde")
    lines: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(size=6, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)

    def append_metrics(self, line: dict[str, Any]) -> None:
        self.lines.append(json.loads(json.dumps(line, allow_nan=False)))

    def save_weights(self, state_dict: dict[str, Tensor]) -> None:
        self.weights = {name: value.clone() for name, value in state_dict.items()}

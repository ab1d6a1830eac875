"""The loader leaves torch's own random numbers alone, and its batches cross from a worker without a copy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from buttress.loading.batches import HardBatches
from buttress.loading.loader import BatchLoader
from buttress.models.preprocessing import Preprocessing
from buttress.training.engine import fit
from buttress.training.rng import seed_everything
from buttress.training.settings import TrainingSettings
from buttress.views.presets import preset


@dataclass
class Folder:
    """What the engine needs of a run; dies after `last` epochs."""

    path: Path
    last: int = 99
    classes: tuple[str, ...] | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(size=24, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)

    def append_metrics(self, line: dict[str, Any]) -> None:
        if line["epoch"] > self.last:
            raise KeyboardInterrupt

    def save_weights(self, state_dict: dict[str, Tensor]) -> None:
        pass


def loader_of(source, **options) -> BatchLoader:
    return BatchLoader(HardBatches(source, preset("small"), seed=0, size=24), **{"batch": 8, **options})


def trained(source, folder, workers, **options) -> list[Tensor]:
    seed_everything(0)
    layers = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 16), nn.Dropout(0.5), nn.Linear(16, 3)]
    model = nn.Sequential(*layers)
    settings = TrainingSettings(epochs=3, batch=8, lr=0.01, precision="fp32", workers=workers)
    fit(model, loader_of(source, shuffle=True, workers=workers), settings, run=folder, **options)
    return [value.clone() for value in model.state_dict().values()]


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_R14_dropout_does_not_see_the_workers_nor_a_resume(source, tmp_path):
    straight = trained(source, Folder(tmp_path / "0"), 0)
    assert same(straight, trained(source, Folder(tmp_path / "1"), 1))
    for workers in (0, 1):
        path = tmp_path / f"resumed-{workers}"
        with pytest.raises(KeyboardInterrupt):
            trained(source, Folder(path, last=1), workers)
        assert same(straight, trained(source, Folder(path), workers, resume=True))


def test_batches_of_a_worker_come_through_shared_memory(source):
    for batch in loader_of(source, shuffle=False, workers=1):
        assert batch.images.is_shared()
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert isinstance(batch.targets, Tensor)
        assert batch.targets.is_shared()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [0, 1])
def test_on_a_gpu_batches_are_pinned(source, workers):
    assert all(batch.images.is_pinned() for batch in loader_of(source, shuffle=False, workers=workers))


LEFT_OPEN = """
from buttress.metrics.score import evaluation_loader
from buttress.models.preprocessing import Preprocessing
from buttress.sources import open_source

look = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.2,) * 3, interpolation="bilinear", crop_pct=1.0)
batches = iter(evaluation_loader(look, open_source("digits"), workers=2))
next(batches)
"""


def test_a_program_ends_that_has_left_its_loader_open() -> None:
    """Or a notebook, or a test suite, would wait at its end for workers that nobody has told."""
    subprocess.run([sys.executable, "-c", LEFT_OPEN], check=True, timeout=250)

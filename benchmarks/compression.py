"""Compressed and elastic models from a reinforcement against those from hard labels, on CIFAR-100.

    python -m benchmarks.compression plain      # the networks that are compressed, and compared with
    python -m benchmarks.compression tune       # choose learning rates and softness on held-back training images
    python -m benchmarks.compression run        # the comparison; every run is lines of docs/results/compression.jsonl
    python -m benchmarks.compression table      # made from that file alone (`page`: into docs/compression.md)

The images, the split, the teacher, the store and the plain student are those of `benchmarks.cifar100` with 10,000
images: make them first by its `teacher` and `reinforce`. Same views, batch, steps, optimizer and schedule for all
that train from scratch; scored once, at the last epoch, on the 10,000 test images. What is in the file is not done
again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cifar100 import BATCH, EPOCHS, IMAGES, POLICY, SIZE, STUDENT, test_uri
from benchmarks.trials import figures_on, run_trials

NAME, MODULE = "compression", "benchmarks.compression"
WORK = Path(f"build/cifar100-{IMAGES}")
LEARNING_RATES = {"hard": 4e-3, "store": 8e-3}  # as chosen for the plain student by benchmarks.cifar100 tune
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Trial:
    """One training. `targets`: hard or store. `phase`: tune scores on the held-back images, final on test images."""

    phase: str
    arm: str
    targets: str
    seed: int
    lr: float
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.phase}-{self.arm}-{self.targets}-{self.lr:g}-{self.seed}"


def data_of(trial: Trial, work: Path) -> Any:
    """What a trial learns from."""
    from buttress.sources import open_source
    from buttress.store.reader import open_reinforcement
    from buttress.training.data import TrainingData
    from buttress.views.presets import preset

    source = open_source(f"parquet:{work}/fit.parquet")
    if trial.targets == "store":
        return TrainingData(source=source, reinforcement=open_reinforcement(work / "reinforced-store"))
    return TrainingData(source=source, policy=preset(POLICY))


def settings_of(trial: Trial) -> Any:
    from buttress.training.settings import EngineSettings, TrainingSettings

    return TrainingSettings(
        epochs=trial.epochs,
        batch=BATCH,
        lr=trial.lr,
        seed=trial.seed,
        workers=0,
        evaluate_every=trial.epochs,
        engine=EngineSettings(checkpoint_every=1),
    )


def train_one(trial: Trial, work: Path) -> dict[str, Any]:
    """Train and score one trial in this process, on one thread."""
    import torch

    from buttress.training.train import train_on_source

    torch.set_num_threads(1)
    out = work / "compression" / trial.name
    resumed, used = out.exists(), time.process_time()
    run = train_on_source(
        data_of(trial, work), model=STUDENT, out=out, settings=settings_of(trial), size=SIZE, resume=resumed
    )
    cost = {"cpu_seconds": round(time.process_time() - used), "resumed": resumed}
    test = test_uri() if trial.phase == "final" else None
    figures = figures_on(run.load_model(), f"parquet:{work}/held.parquet", test)
    return {"kind": "trial", **asdict(trial), **cost, **figures}


def plain_trials() -> list[Trial]:
    return [
        Trial("final", "plain", targets, seed, LEARNING_RATES[targets], EPOCHS[IMAGES])
        for seed in SEEDS
        for targets in ("hard", "store")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plain"])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    run_trials(NAME, plain_trials(), train_one, asked.work, asked.processes, MODULE)


if __name__ == "__main__":
    main()

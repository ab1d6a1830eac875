"""A teacher that does not know the classes: CIFAR-100's 20 superclasses, 2,000 images, an ImageNet teacher.

    python -m benchmarks.auxiliary prepare    # split the images; fine-tune a teacher; label by it and by the plain one
    python -m benchmarks.auxiliary tune       # choose the learning rates on held-back training images
    python -m benchmarks.auxiliary run        # the comparison; every run is a line of docs/results/auxiliary.jsonl
    python -m benchmarks.auxiliary table      # the table, made from that file alone (`page`: into docs/training.md)

Superclasses such as "large man-made outdoor things" are no classes of ImageNet. Arms: `hard` labels; `tuned`: a teacher
(EfficientNet-Lite0 at 96 px) gets a new head and is fine-tuned on the same 2,000 images, which are then reinforced;
`auxiliary`: the teacher as it is, its own 1,000 classes by a second head of the student that is dropped. 100 images a
superclass to train on, 50 more are held back for rates and temperatures; scored once, at the last epoch, on the 10,000
test images. What is in the file is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.trials import (
    Line,
    data_folder,
    figures_on,
    lines,
    markdown,
    paired_interval,
    put_table,
    run_trials,
    spread,
)

NAME, MODULE = "auxiliary", "benchmarks.auxiliary"
PAGE = Path(__file__).parents[1] / "docs" / "training.md"
MARK = "<!-- made by `python -m benchmarks.auxiliary page` -->"
TEACHER, TEACHER_SIZE, TEACHER_EPOCHS, TEACHER_LR = "tf_efficientnet_lite0", 96, 10, 1e-3
STUDENT, SIZE, BATCH, EPOCHS, VIEWS = "timm:test_resnet", 32, 64, 60, 20
LEARNING_RATES = (1e-3, 2e-3, 4e-3)
SEEDS = (0, 1, 2)
TRAIN, HELD, SPLIT_SEED = 100, 50, 20261121  # images a superclass
ARMS = {
    "hard": "hard labels",
    "tuned": "reinforced by a fine-tuned teacher",
    "auxiliary": "hard labels + **auxiliary head**, teacher as it is",
}
STORES = {"tuned": "source", "auxiliary": "teacher"}  # arm -> classes of its store


@dataclass(frozen=True)
class Trial:
    """One training. `phase`: tune scores on the held-back images, final on the test images."""

    phase: str
    arm: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.phase}-{self.arm}-{self.lr:g}-{self.seed}"


def uri(work: Path, part: str) -> str:
    file = data_folder() / "cifar100" / "test.parquet" if part == "test" else work / f"{part}.parquet"
    return f"parquet:{file}?label=coarse_label"


def split(work: Path) -> None:
    """Write the training and the held-back images as two files."""
    import pyarrow.parquet as pq

    if (work / "held.parquet").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(data_folder() / "cifar100" / "train.parquet")
    rng, labels = np.random.default_rng(SPLIT_SEED), np.array(table["coarse_label"])
    shuffled = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    for part, first, stop in (("fit", 0, TRAIN), ("held", TRAIN, TRAIN + HELD)):
        pq.write_table(table.take(np.sort(np.concatenate([k[first:stop] for k in shuffled]))), work / f"{part}.parquet")


def prepare(work: Path) -> None:
    """Fine-tune the teacher, and label the images by it and by the teacher as it is."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.sources import open_source
    from buttress.teachers import TeacherSpec
    from buttress.views.presets import preset

    split(work)
    source, weights = open_source(uri(work, "fit")), data_folder() / "weights" / f"{TEACHER}.fp16.safetensors"
    plain = f"timm:{TEACHER}@{weights}"
    teachers = {"tuned": f"run:{fine_tuned(work, plain)}", "auxiliary": plain}
    for arm, classes in STORES.items():
        spec = TeacherSpec(uri=teachers[arm], size=TEACHER_SIZE, classes=classes, source_classes=source.classes)  # type: ignore[arg-type]
        label_source(source, spec, preset("small"), LabelSettings(views=VIEWS), work / f"{arm}-store")


def fine_tuned(work: Path, plain: str) -> Path:
    """The teacher with a head of the superclasses; one line says what it is worth."""
    from buttress.runs.resolve import resolve_model
    from buttress.sources import open_source
    from buttress.training.data import TrainingData
    from buttress.training.settings import TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import preset

    out = work / "teacher"
    if (out / "model.safetensors").exists():
        return out
    settings = TrainingSettings(
        epochs=TEACHER_EPOCHS, lr=TEACHER_LR, batch=64, workers=1, evaluate_every=TEACHER_EPOCHS
    )
    data = TrainingData(source=open_source(uri(work, "fit")), policy=preset("small"))
    started = time.process_time()
    train_on_source(
        data, model=plain, out=out, settings=settings, size=TEACHER_SIZE, resume=(out / "run.json").exists()
    )
    seconds = round(time.process_time() - started)
    figures = figures_on(resolve_model(f"run:{out}"), uri(work, "held"), uri(work, "test"))
    record(NAME, {"kind": "teacher", "model": TEACHER, "cpu_seconds": seconds, **figures}, MODULE)
    return out


def train_one(trial: Trial, work: Path) -> dict[str, Any]:
    """Train and score one trial in this process, on one thread."""
    import torch

    from buttress.runs.resolve import resolve_model
    from buttress.sources import open_source
    from buttress.store.reader import open_reinforcement
    from buttress.training.data import TrainingData
    from buttress.training.settings import EngineSettings, TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import preset

    torch.set_num_threads(1)
    source = open_source(uri(work, "fit"))
    data = TrainingData(source=source, policy=preset("small"))
    if trial.arm in STORES:
        store = open_reinforcement(work / f"{trial.arm}-store")
        data = TrainingData(source=source, reinforcement=store, head="auxiliary" if trial.arm == "auxiliary" else "own")
    settings = TrainingSettings(
        epochs=EPOCHS,
        batch=BATCH,
        lr=trial.lr,
        seed=trial.seed,
        workers=0,
        evaluate_every=EPOCHS,
        engine=EngineSettings(checkpoint_every=EPOCHS),
    )
    used, out = time.process_time(), work / "runs" / trial.name
    train_on_source(data, model=STUDENT, out=out, settings=settings, size=SIZE, resume=(out / "run.json").exists())
    used = time.process_time() - used
    test = uri(work, "test") if trial.phase == "final" else None
    figures = figures_on(resolve_model(f"run:{out}"), uri(work, "held"), test)
    return {"kind": "trial", **asdict(trial), "epochs": EPOCHS, "cpu_seconds": round(used), **figures}


def trials_of(phase: str, arm: str) -> dict[int, Line]:
    """Seed -> line."""
    return {x["seed"]: x for x in lines(NAME) if x["kind"] == "trial" and (x["phase"], x["arm"]) == (phase, arm)}


def best_rate(arm: str) -> float:
    """Of the lowest NLL on the held-back images."""
    found = [x for x in lines(NAME) if x["kind"] == "trial" and (x["phase"], x["arm"]) == ("tune", arm)]
    if not found:
        sys.exit(f"no rate for {arm}: run `python -m {MODULE} tune` first")
    return float(min(found, key=lambda x: x["held_back"]["nll"])["lr"])


def table() -> str:
    """Every arm against hard labels."""
    header = ["trained on", "rate", "seeds", "top-1 %", "gain, points [95 %]", "NLL", "ECE %", "ECE % scaled"]
    hard, rows = trials_of("final", "hard"), []
    for arm, name in ARMS.items():
        runs = trials_of("final", arm)
        found = list(runs.values())
        if not found:
            continue
        gain = "" if arm == "hard" else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*paired_interval(runs, hard))
        figures = [spread((x[key] for x in found), 100) for key in ("top1", "ece", "ece_scaled")]
        nll = spread((x["nll"] for x in found), digits=2)
        rows.append([name, f"{found[0]['lr']:g}", str(len(found)), figures[0], gain, nll, *figures[1:]])
    return markdown(header, rows)


def trials(phase: str, arms: Sequence[str]) -> list[Trial]:
    if phase == "tune":
        return [Trial("tune", arm, lr, 0) for lr in LEARNING_RATES for arm in arms]
    return [Trial("final", arm, best_rate(arm), seed) for seed in SEEDS for arm in arms]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "tune", "run", "table", "page"])
    parser.add_argument("--work", type=Path, default=Path("build/auxiliary"))
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    if asked.what == "prepare":
        prepare(asked.work)
    elif asked.what in ("tune", "run"):
        phase = "tune" if asked.what == "tune" else "final"
        run_trials(NAME, trials(phase, list(ARMS)), train_one, asked.work, asked.processes, MODULE)
    elif asked.what == "page":
        put_table(PAGE, MARK, table())
    else:
        print(table())
        print(json.dumps([x["top1"] for x in lines(NAME) if x["kind"] == "teacher"]))


if __name__ == "__main__":
    main()

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
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.trials import (
    COMPARED,
    Line,
    best_rate,
    compared,
    data_folder,
    figures_on,
    lines,
    markdown,
    put_table,
    run_trials,
    split_classes,
)

NAME, MODULE = "auxiliary", "benchmarks.auxiliary"
PAGE = Path(__file__).parents[1] / "docs" / "training.md"
MARK = "<!-- made by `python -m benchmarks.auxiliary page` -->"
TEACHER, TEACHER_SIZE, TEACHER_EPOCHS, TEACHER_LR = "tf_efficientnet_lite0", 96, 10, 1e-3
LABELLING_SIZE = 128  # of the teacher as it is
STUDENT, SIZE, BATCH, EPOCHS, VIEWS = "timm:test_resnet", 48, 64, 100, 20
POLICY, TEACHER_POLICY = "small-crop", "small"
LEARNING_RATES = (4e-3, 8e-3)
SEEDS = (0, 1, 2)
TRAIN, HELD, SPLIT_SEED = 100, 50, 20261121  # images a superclass
ARMS = {
    "hard": "hard labels",
    "tuned": "reinforced by a fine-tuned teacher",
    "auxiliary": "hard labels + **auxiliary head**, teacher as it is",
}


@dataclass(frozen=True)
class Trial:
    """One training. `phase`: tune scores on the held-back images, final on the test images."""

    phase: str
    arm: str
    lr: float
    seed: int
    size: int = SIZE
    policy: str = POLICY
    epochs: int = EPOCHS

    @property
    def name(self) -> str:
        how = f"{self.policy}-{self.size}px-{self.epochs}"
        return f"{self.phase}-{self.arm}-{how}-{self.lr:g}-{self.seed}"


def uri(work: Path, part: str) -> str:
    file = data_folder() / "cifar100" / "test.parquet" if part == "test" else work / f"{part}.parquet"
    return f"parquet:{file}?label=coarse_label"


def prepare(work: Path) -> None:
    """Fine-tune the teacher, and label the images by it and by the teacher as it is."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.sources import open_source
    from buttress.teachers import TeacherSpec
    from buttress.views.presets import preset

    parts = {"fit": range(TRAIN), "held": range(TRAIN, TRAIN + HELD)}
    split_classes(work, "coarse_label", parts, SPLIT_SEED)
    source, weights = open_source(uri(work, "fit")), data_folder() / "weights" / f"{TEACHER}.fp16.safetensors"
    plain = f"timm:{TEACHER}@{weights}"
    tuned = TeacherSpec(uri=f"run:{fine_tuned(work, plain)}", size=TEACHER_SIZE, source_classes=source.classes)
    as_it_is = TeacherSpec(uri=plain, size=LABELLING_SIZE, classes="teacher", source_classes=source.classes)
    for arm, spec in (("tuned", tuned), ("auxiliary", as_it_is)):
        label_source(source, spec, preset(POLICY), LabelSettings(views=VIEWS), work / f"{arm}-store")


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
    data = TrainingData(source=open_source(uri(work, "fit")), policy=preset(TEACHER_POLICY))
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
    if trial.arm == "hard":
        data = TrainingData(source=source, policy=preset(trial.policy))
    else:
        store = open_reinforcement(work / f"{trial.arm}-store")
        data = TrainingData(source=source, reinforcement=store, head="auxiliary" if trial.arm == "auxiliary" else "own")
    settings = TrainingSettings(
        epochs=trial.epochs,
        batch=BATCH,
        lr=trial.lr,
        seed=trial.seed,
        workers=0,
        evaluate_every=trial.epochs,
        engine=EngineSettings(checkpoint_every=10),
    )
    used, out = time.process_time(), work / "runs" / trial.name
    train_on_source(
        data, model=STUDENT, out=out, settings=settings, size=trial.size, resume=(out / "run.json").exists()
    )
    used = time.process_time() - used
    test = uri(work, "test") if trial.phase == "final" else None
    figures = figures_on(resolve_model(f"run:{out}"), uri(work, "held"), test)
    return {"kind": "trial", **asdict(trial), "cpu_seconds": round(used), **figures}


def trials_of(phase: str, arm: str) -> list[Line]:
    """Lines of the present side, policy and length."""
    asked = {"kind": "trial", "phase": phase, "arm": arm, "size": SIZE, "policy": POLICY, "epochs": EPOCHS}
    return [x for x in lines(NAME) if asked == {key: x.get(key) for key in asked}]


def table() -> str:
    """Every arm against hard labels."""
    found = {arm: {x["seed"]: x for x in trials_of("final", arm)} for arm in ARMS}
    rows = [[ARMS[arm], *compared(runs, found["hard"])] for arm, runs in found.items() if runs]
    return markdown(["trained on", *COMPARED], rows)


def trials(phase: str) -> list[Trial]:
    if phase == "tune":
        return [Trial("tune", arm, lr, 0) for lr in LEARNING_RATES for arm in ARMS]
    return [
        Trial("final", arm, best_rate(trials_of("tune", arm), LEARNING_RATES, arm), seed)
        for seed in SEEDS
        for arm in ARMS
    ]


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
        run_trials(NAME, trials(phase), train_one, asked.work, asked.processes, MODULE)
    elif asked.what == "page":
        put_table(PAGE, MARK, table())
    else:
        print(table())
        print(json.dumps([x["top1"] for x in lines(NAME) if x["kind"] == "teacher"]))


if __name__ == "__main__":
    main()

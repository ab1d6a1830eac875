"""A teacher that does not know the classes: CIFAR-100's 20 superclasses, 2,000 images, an ImageNet teacher.

    python -m benchmarks.auxiliary prepare    # split the images; fine-tune teachers; label by them and by the plain one
    python -m benchmarks.auxiliary probe      # what a linear model reads off the plain teacher's classes
    python -m benchmarks.auxiliary tune       # choose the weight of the second head's loss on the held-back images
    python -m benchmarks.auxiliary run        # the comparison; every run is a line of docs/results/auxiliary.jsonl
    python -m benchmarks.auxiliary table      # the table, made from that file alone (`page`: into docs/training.md)

Superclasses such as "large man-made outdoor things" are no classes of ImageNet. Two cases: all 2,000 images have their
label, or 500 of them. Arms: `hard` labels; `tuned`: a teacher (EfficientNet-Lite0 at 96 px) gets a new head and is
fine-tuned on the labelled images, then all are reinforced; `auxiliary`: the teacher as it is, its own 1,000 classes for
all images by a second head of the student that is dropped. Every arm takes the same number of updates at one rate, that
which CIFAR-100's hard labels have in as many (benchmarks/cifar100.py). 1,000 other images are held back for that weight
and for temperatures; the 10,000 test images are scored once, at the last epoch. What is in the file is not done again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.trials import (
    COMPARED,
    Line,
    compared,
    data_folder,
    figures_on,
    lines,
    markdown,
    put_table,
    run_trials,
    split_classes,
)
from buttress.sources import Relabelled, Source, open_source

NAME, MODULE = "auxiliary", "benchmarks.auxiliary"
PAGE = Path(__file__).parents[1] / "docs" / "training.md"
MARK = "<!-- made by `python -m benchmarks.auxiliary page` -->"
TEACHER, TEACHER_SIZE, TEACHER_EPOCHS, TEACHER_LR = "tf_efficientnet_lite0", 96, 10, 1e-3
LABELLING_SIZE = 128  # of the teacher as it is
STUDENT, SIZE, BATCH, EPOCHS, VIEWS = "timm:test_resnet", 48, 64, 100, 20
POLICY, TEACHER_POLICY = "small-crop", "small"
LR, PROBE_C = 4e-3, 1e-2
WEIGHTS = (1.0, 4.0)  # of the second head's loss
SEEDS = (0, 1, 2)
FREE = ("seed", "phase")
TRAIN, HELD, SPLIT_SEED = 100, 50, 20261121  # images a superclass
CASES = {"all": ("all", TRAIN), "few": ("500", TRAIN // 4)}  # of the 2,000; images a superclass with their label
ARMS = {
    "hard": "hard labels",
    "tuned": "reinforced by a fine-tuned teacher",
    "auxiliary": "hard labels + **auxiliary head**, teacher as it is",
}


@dataclass(frozen=True)
class Trial:
    """One training. `epochs`: of 2,000 images; fewer take more for as many updates.

    `phase`: tune is scored on the held-back images, final on the test images too. `weight`: of the second head's loss.
    """

    arm: str
    seed: int
    case: str
    lr: float = LR
    size: int = SIZE
    policy: str = POLICY
    epochs: int = EPOCHS
    phase: str = "final"
    weight: float = 1.0

    @property
    def name(self) -> str:
        how = f"{self.policy}-{self.size}px-{self.epochs}-{self.lr:g}"
        weight = "" if self.weight == 1 else f"-w{self.weight:g}"  # the first lines do not say it
        return f"{self.phase}-{self.case}-{self.arm}-{how}{weight}-{self.seed}"


def uri(work: Path, part: str) -> str:
    file = data_folder() / "cifar100" / "test.parquet" if part == "test" else work / f"{part}.parquet"
    return f"parquet:{file}?label=coarse_label"


def training_images(work: Path, case: str) -> Source:
    """The 2,000 images; those beyond the labelled ones of a superclass without their label."""
    source = open_source(uri(work, "fit"))
    labels = np.array(source.labels)
    for label in np.unique(labels):
        labels[np.flatnonzero(labels == label)[CASES[case][1] :]] = -1
    return Relabelled(source, labels)


def prepare(work: Path) -> None:
    """Fine-tune the teachers, and label the images by them and by the teacher as it is."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.teachers import TeacherSpec
    from buttress.views.presets import preset

    parts = {"fit": range(TRAIN), "held": range(TRAIN, TRAIN + HELD)}
    split_classes(work, "coarse_label", parts, SPLIT_SEED)
    source, weights = open_source(uri(work, "fit")), data_folder() / "weights" / f"{TEACHER}.fp16.safetensors"
    plain = f"timm:{TEACHER}@{weights}"
    as_it_is = TeacherSpec(uri=plain, size=LABELLING_SIZE, classes="teacher", source_classes=source.classes)
    label_source(source, as_it_is, preset(POLICY), LabelSettings(views=VIEWS), work / "auxiliary-store")
    for case in CASES:
        teacher = f"run:{fine_tuned(work, plain, case)}"
        tuned = TeacherSpec(uri=teacher, size=TEACHER_SIZE, source_classes=source.classes)
        images = training_images(work, case)
        label_source(images, tuned, preset(POLICY), LabelSettings(views=VIEWS), work / f"tuned-{case}-store")


def fine_tuned(work: Path, plain: str, case: str) -> Path:
    """The teacher with a head of the superclasses; one line says what it is worth."""
    from buttress.runs.resolve import resolve_model
    from buttress.training.data import TrainingData
    from buttress.training.settings import TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import preset

    out = work / f"teacher-{case}"
    if (out / "model.safetensors").exists():
        return out
    epochs = TEACHER_EPOCHS * TRAIN // CASES[case][1]
    settings = TrainingSettings(epochs=epochs, lr=TEACHER_LR, batch=64, workers=1, evaluate_every=epochs)
    data = TrainingData(source=training_images(work, case), policy=preset(TEACHER_POLICY))
    started = time.process_time()
    train_on_source(
        data, model=plain, out=out, settings=settings, size=TEACHER_SIZE, resume=(out / "run.json").exists()
    )
    seconds = round(time.process_time() - started)
    figures = figures_on(resolve_model(f"run:{out}"), uri(work, "held"), uri(work, "test"))
    record(NAME, {"kind": "teacher", "case": case, "model": TEACHER, "cpu_seconds": seconds, **figures}, MODULE)
    return out


def probe(work: Path) -> None:
    """One line: accuracy of a linear model on what the plain teacher says of plain views, on the held-back images."""
    from sklearn.linear_model import LogisticRegression

    from buttress.metrics.evaluate import predictions
    from buttress.metrics.score import evaluation_loader
    from buttress.models.load import at_size, load_model

    uri_of_teacher = f"timm:{TEACHER}@{data_folder() / 'weights' / TEACHER}.fp16.safetensors"
    loaded = at_size(load_model(uri_of_teacher), TEACHER_SIZE)
    told = []
    for part in ("fit", "held"):
        loader = evaluation_loader(loaded.preprocessing, open_source(uri(work, part)))
        said = predictions(loaded.module, loader, preprocessing=loaded.preprocessing, classes=loaded.num_classes)
        told.append((said.logits_NC.log_softmax(1).numpy(), said.labels_N.numpy()))
    (fit, labels), (held, truth) = told
    mean, deviation = fit.mean(0), fit.std(0)
    linear = LogisticRegression(C=PROBE_C, max_iter=500).fit((fit - mean) / deviation, labels)
    top1 = float(linear.score((held - mean) / deviation, truth))
    record(NAME, {"kind": "probe", "model": TEACHER, "size": TEACHER_SIZE, "c": PROBE_C, "held_back": top1}, MODULE)


def train_one(trial: Trial, work: Path) -> dict[str, Any]:
    """Train and score one trial in this process, on one thread."""
    import torch

    from buttress.runs.resolve import resolve_model
    from buttress.store.reader import open_reinforcement
    from buttress.training.data import TrainingData
    from buttress.training.settings import EngineSettings, LossSettings, TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import preset

    torch.set_num_threads(1)
    source, epochs = training_images(work, trial.case), trial.epochs
    if trial.arm == "hard":
        data = TrainingData(source=source, policy=preset(trial.policy))
        labelled = int((np.asarray(source.labels) >= 0).sum())
        epochs = round(epochs * (len(source) // BATCH) / (labelled // BATCH))
    elif trial.arm == "auxiliary":
        data = TrainingData(source=source, reinforcement=open_reinforcement(work / "auxiliary-store"), head="auxiliary")
    else:
        data = TrainingData(source=source, reinforcement=open_reinforcement(work / f"tuned-{trial.case}-store"))
    settings = TrainingSettings(
        epochs=epochs,
        batch=BATCH,
        lr=trial.lr,
        seed=trial.seed,
        workers=0,
        evaluate_every=epochs,
        loss=LossSettings(auxiliary_weight=trial.weight),
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


def runs(case: str, arm: str, weight: float, phases: Sequence[str]) -> dict[int, Line]:
    """Seed -> line, of the present side, policy, length and rate."""
    wanted = {key: value for key, value in asdict(Trial(arm, 0, case, weight=weight)).items() if key not in FREE}
    found = [{"weight": 1.0, **line} for line in lines(NAME) if line["kind"] == "trial" and line["phase"] in phases]
    return {x["seed"]: x for x in found if wanted == {key: x.get(key) for key in wanted}}


def tuned(case: str) -> dict[float, Line]:
    """Weight of the second head's loss -> line of seed 0, whichever phase it is of."""
    found = {weight: runs(case, "auxiliary", weight, ("tune", "final")) for weight in WEIGHTS}
    return {weight: seeds[0] for weight, seeds in found.items() if 0 in seeds}


def tuning(cases: Sequence[str]) -> list[Trial]:
    return [
        Trial("auxiliary", 0, case, phase="tune", weight=weight)
        for case in cases
        for weight in WEIGHTS
        if weight not in tuned(case)
    ]


def weight_of(case: str, arm: str) -> float:
    """That of the least NLL on the held-back images; a program that lacks one ends here."""
    if arm != "auxiliary":
        return 1.0
    found = tuned(case)
    if missing := [f"{weight:g}" for weight in WEIGHTS if weight not in found]:
        sys.exit(f"{case}: no run of weight {', '.join(missing)}; tune first")
    return min(found, key=lambda weight: float(found[weight]["held_back"]["nll"]))


def finals(cases: Sequence[str], arms: Sequence[str]) -> list[Trial]:
    return [Trial(arm, seed, case, weight=weight_of(case, arm)) for seed in SEEDS for case in cases for arm in arms]


def table() -> str:
    """Every arm against hard labels."""
    rows = []
    for case, (labelled, _) in CASES.items():
        arms = [arm for arm in ARMS if arm != "auxiliary" or len(tuned(case)) == len(WEIGHTS)]
        found = {arm: runs(case, arm, weight_of(case, arm), ("final",)) for arm in arms}
        rows += [[labelled, ARMS[arm], *compared(those, found["hard"])] for arm, those in found.items() if those]
    return markdown(["labelled", "trained on", *COMPARED], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "probe", "tune", "run", "table", "page"])
    parser.add_argument("--work", type=Path, default=Path("build/auxiliary"))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="also what is in the file; runs in --work are only scored")
    asked = parser.parse_args()
    if asked.what == "prepare":
        prepare(asked.work)
    elif asked.what == "probe":
        probe(asked.work)
    elif asked.what in ("tune", "run"):
        arms, cases = asked.arms.split(","), asked.cases.split(",")
        trials = tuning(cases) if asked.what == "tune" else finals(cases, arms)
        run_trials(NAME, trials, train_one, asked.work, asked.processes, MODULE, again=asked.again)
    elif asked.what == "page":
        put_table(PAGE, MARK, table())
    else:
        print(table())


if __name__ == "__main__":
    main()

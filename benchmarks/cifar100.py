"""The main comparison, on CIFAR-100: hard labels, a live teacher, reinforced, reinforced with mixing, label refinery.

    python -m benchmarks.cifar100 teacher     # split the images; fine-tune the teacher by `buttress train`
    python -m benchmarks.cifar100 reinforce   # label the training images under both policies
    python -m benchmarks.cifar100 labels      # how sure the teacher is of them
    python -m benchmarks.cifar100 tune        # choose the learning rates on held-back training images
    python -m benchmarks.cifar100 run         # the comparison; every run is a line of docs/results/cifar100-main.jsonl
    python -m benchmarks.cifar100 table       # the tables, made from that file alone (`page`: into docs/cifar100.md)

10,000 training images; 2,000 others, held back, choose rates and fit temperatures; none trains on them. The student is
timm's `test_resnet` (0.4 M parameters) at 48 px. Same steps, batch, schedule and policy family for all; scored once, at
the last epoch, on the 10,000 test images. What is in the file is not done again. `--images 18000` is the same on
18,000 images, 15 epochs, with a teacher of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

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

NAME, MODULE = "cifar100-main", "benchmarks.cifar100"
PAGE = Path(__file__).parents[1] / "docs" / "cifar100.md"
MARK = "<!-- made by `python -m benchmarks.cifar100 page` -->"
TEACHER, TEACHER_SIZE, TEACHER_EPOCHS, TEACHER_LR = "tf_efficientnet_lite0", 96, 5, 1e-3
STUDENT, SIZE, BATCH, VIEWS = "timm:test_resnet", 48, 64, 10
LEARNING_RATES = (4e-3, 8e-3)
EPOCHS = {10_000: 25, 18_000: 15}  # by the number of training images
IMAGES, FIRST_IMAGES = 10_000, 18_000
SEEDS = (0, 1, 2)
CLASSES, HELD_BACK, SPLIT_SEED = 100, 20, 20261121  # images a class
POLICY = "small-crop"
POLICIES = {"reinforced": POLICY, "reinforced-mix": "small-mix"}
ARMS = {
    "hard": "hard labels",
    "smooth": "hard labels, smoothing 0.1",
    "refined": "label refinery, round 3",
    "online": "live teacher",
    "reinforced": "**reinforced**",
    "reinforced-mix": "**reinforced + mix**",
}
RATE_OF = {"smooth": "hard"}  # every other arm but hard takes the rate of reinforced


@dataclass(frozen=True)
class Trial:
    """One training (of `refined`: three). `phase`: tune scores on the held-back images, final on test images."""

    phase: str
    arm: str
    lr: float
    seed: int
    batch: int = BATCH
    size: int = SIZE
    policy: str = POLICY
    images: int = IMAGES

    @property
    def name(self) -> str:
        count = "" if self.images == FIRST_IMAGES else f"-{self.images}"  # the first lines do not say it
        return f"{self.phase}-{self.arm}{count}-{self.policy}-{self.size}px-b{self.batch}-{self.lr:g}-{self.seed}"


def cpu_seconds() -> float:
    """Of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def split(work: Path, images: int) -> None:
    """Write the training and the held-back images, the latter 20 a class, as two files."""
    parts = {"fit": range(HELD_BACK, HELD_BACK + images // CLASSES), "held": range(HELD_BACK)}
    split_classes(work, "fine_label", parts, SPLIT_SEED)


def teacher(work: Path, images: int) -> None:
    """Fine-tune the teacher with a new head by the command line."""
    split(work, images)
    weights = data_folder() / "weights" / f"{TEACHER}.fp16.safetensors"
    words = [
        *("--model", f"timm:{TEACHER}@{weights}", "--data", f"parquet:{work}/fit.parquet"),
        *("--val", f"parquet:{work}/held.parquet", "--policy", "small", "--size", str(TEACHER_SIZE)),
        *("--epochs", str(TEACHER_EPOCHS), "--lr", str(TEACHER_LR), "--workers", "1", "--out", f"{work}/teacher"),
    ]
    begun = (work / "teacher" / "run.json").exists()
    started = time.perf_counter()
    run = [sys.executable, "-m", "buttress", "train", *words, *(["--resume"] if begun else [])]
    subprocess.run(run, check=True)
    note_teacher(work, images, (time.perf_counter() - started) / 60)


def note_teacher(work: Path, images: int, minutes: float) -> None:
    """One line of what the teacher is worth."""
    from buttress.metrics.score import score
    from buttress.runs.resolve import resolve_model
    from buttress.sources import open_source

    loaded = resolve_model(f"run:{work}/teacher")
    test = score(loaded, open_source(test_uri()))
    held = json.loads((work / "teacher" / "metrics.jsonl").read_text().splitlines()[-1])["val"]
    record(
        NAME,
        {
            "kind": "teacher",
            "images": images,
            "model": TEACHER,
            "size": TEACHER_SIZE,
            "epochs": TEACHER_EPOCHS,
            "lr": TEACHER_LR,
            "minutes": round(minutes, 1),
            "held_back": {key: held[key]["value"] for key in ("top1", "nll", "ece")},
            "test": {key: test.figures[key]["value"] for key in ("top1", "nll", "ece")},
        },
        MODULE,
    )


def test_uri() -> str:
    return f"parquet:{data_folder()}/cifar100/test.parquet"


def reinforce(work: Path, images: int, policies: Iterable[str]) -> None:
    """What the teacher says of the training images, a store per policy."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.sources import open_source
    from buttress.teachers.teacher import TeacherSpec
    from buttress.views.presets import preset

    source = open_source(f"parquet:{work}/fit.parquet")
    for arm in policies:
        out = work / f"{arm}-store"
        if (out / "reinforcement.json").exists():
            continue
        started, used = time.perf_counter(), cpu_seconds()
        spec = TeacherSpec(uri=f"run:{work}/teacher", source_classes=source.classes)
        label_source(source, spec, preset(POLICIES[arm]), LabelSettings(views=VIEWS), out)
        size = sum(file.stat().st_size for file in out.iterdir())
        seconds = {"wall_seconds": round(time.perf_counter() - started, 1), "cpu_seconds": round(cpu_seconds() - used)}
        document = {
            "kind": "store",
            "images": images,
            "arm": arm,
            "views": VIEWS,
            "policy": POLICIES[arm],
            "bytes": size,
            **seconds,
        }
        record(NAME, document, MODULE)


def labels(work: Path, images: int) -> None:
    """One line: what the teacher says of views of the images that it was tuned on."""
    import torch

    from buttress.loading.targets import SparseTargets
    from buttress.store.reader import open_reinforcement
    from buttress.training.losses import entropy

    store = open_reinforcement(work / "reinforced-store")
    rows, told = np.arange(store.rows), []
    for view in range(store.views):
        values_NK, ids_NK, rest_N = store.targets(rows, view)
        tensors = {"values": values_NK, "ids": ids_NK.astype(np.int64), "rest": rest_N}
        targets = SparseTargets(**{key: torch.from_numpy(value) for key, value in tensors.items()}, classes=CLASSES)
        agrees_N = ids_NK[:, 0] == store.hard_labels
        told.append([agrees_N.mean(), store.truth(rows, view).mean(), float(entropy(targets).mean())])
    agreement, own, nats = (round(float(figure), 4) for figure in np.mean(told, axis=0))
    found = {"agreement": agreement, "own_class": own, "entropy_nats": nats}
    record(NAME, {"kind": "labels", "images": images, **found}, MODULE)


def train_one(trial: Trial, work: Path) -> dict[str, Any]:
    """Train and score one trial in this process, on one thread."""
    import torch

    from buttress.runs.resolve import resolve_model
    from buttress.training.settings import EngineSettings, TrainingSettings

    torch.set_num_threads(1)
    epochs = EPOCHS[trial.images]
    settings = TrainingSettings(
        epochs=epochs,
        batch=trial.batch,
        lr=trial.lr,
        seed=trial.seed,
        label_smoothing=0.1 if trial.arm == "smooth" else 0.0,
        workers=0,
        evaluate_every=epochs,
        engine=EngineSettings(checkpoint_every=1),
    )
    resumed, used = (work / "runs" / trial.name).exists(), time.process_time()
    path = trained(trial, work, settings)
    used = time.process_time() - used
    test = test_uri() if trial.phase == "final" else None
    figures = figures_on(resolve_model(f"run:{path}"), f"parquet:{work}/held.parquet", test)
    cost = {"cpu_seconds": round(used), "resumed": resumed}  # of this part of it
    return {"kind": "trial", **asdict(trial), "epochs": epochs, **cost, **figures}


def trained(trial: Trial, work: Path, settings: Any) -> Path:
    """The run folder of a trial, trained; it goes on where it was stopped."""
    from buttress.labelling.settings import LabelSettings
    from buttress.sources import open_source
    from buttress.store.reader import open_reinforcement
    from buttress.teachers import EnsembleSpec, TeacherSpec
    from buttress.training.data import TrainingData
    from buttress.training.refinery import Refinery
    from buttress.training.train import train_on_source
    from buttress.views.presets import preset

    source, policy = open_source(f"parquet:{work}/fit.parquet"), preset(trial.policy)
    out = work / "runs" / trial.name
    if trial.arm == "refined":
        labelling = LabelSettings(views=VIEWS, workers=0)
        refinery = Refinery(
            source=source,
            policy=policy,
            model=STUDENT,
            out=out,
            rounds=3,
            training=settings,
            labelling=labelling,
            size=SIZE,
        )
        return [run.path for run in refinery.run()][-1]
    if trial.arm in POLICIES:
        data = TrainingData(source=source, reinforcement=open_reinforcement(work / f"{trial.arm}-store"))
    elif trial.arm == "online":
        spec = TeacherSpec(uri=f"run:{work}/teacher", source_classes=source.classes, threads=1)
        data = TrainingData(source=source, policy=policy, teacher=EnsembleSpec.of(spec))
    else:
        data = TrainingData(source=source, policy=policy)
    begun = (out / "run.json").exists()
    return train_on_source(data, model=STUDENT, out=out, settings=settings, size=SIZE, resume=begun).path


def tuning(images: int) -> list[Trial]:
    return [Trial("tune", arm, lr, 0, images=images) for lr in LEARNING_RATES for arm in ("hard", "reinforced")]


def trials_of(phase: str, arm: str, images: int) -> dict[int, Line]:
    """Seed -> line; of the rate that was chosen, which is the only one of the finals."""
    asked = (phase, arm, images)
    return {x["seed"]: x for x in lines(NAME) if x["kind"] == "trial" and (x["phase"], x["arm"], of(x)) == asked}


def of(line: Line) -> int:
    """The number of training images; the first lines were written when there was one number alone."""
    return int(line.get("images", FIRST_IMAGES))


def rate_of(arm: str, images: int) -> float:
    """Of the lowest NLL on the held-back images."""
    tuned_as = RATE_OF.get(arm, arm if arm == "hard" else "reinforced")
    found = [x for x in lines(NAME) if (x["kind"], x.get("phase"), x.get("arm")) == ("trial", "tune", tuned_as)]
    same = (BATCH, SIZE, POLICY, images)
    found = [x for x in found if (x["batch"], x.get("size"), x.get("policy"), of(x)) == same]
    return best_rate(found, LEARNING_RATES, arm)


def finals(arms: Sequence[str], images: int) -> list[Trial]:
    return [
        Trial("final", arm, rate_of(arm, images), seed, policy=POLICIES.get(arm, POLICY), images=images)
        for seed in SEEDS
        for arm in arms
    ]


def comparison(images: int) -> str:
    """Every arm against hard labels."""
    hard = trials_of("final", "hard", images)
    found = {arm: trials_of("final", arm, images) for arm in ARMS}
    rows = [[ARMS[arm], *compared(runs, hard)] for arm, runs in found.items() if runs]
    return markdown(["trained on", *COMPARED], rows)


def teacher_table(images: int) -> str:
    """What the teacher is worth, and what labelling cost."""
    rows = []
    for x in lines(NAME):
        if x["kind"] == "teacher" and of(x) == images:
            what = f"{x['model']} at {x['size']} px, {x['epochs']} epochs"
            rows.append(
                [
                    what,
                    f"test top-1 {100 * x['test']['top1']:.1f} %",
                    f"{x['minutes'] - x.get('paused_minutes', 0):.0f} min on a busy core",
                ]
            )
        if x["kind"] == "store" and x["policy"] in POLICIES.values() and of(x) == images:
            what = f"labels of {x['policy']}, {x['views']} views an image"
            rows.append([what, f"{x['bytes'] / 1e6:.1f} MB", f"{x['cpu_seconds']:,} CPU s"])
    return markdown(["what", "", "cost, once"], rows)


def table() -> str:
    """For each number of images what was paid once, and every arm against hard labels."""
    return "\n\n".join(
        f"### {images:,} images, {epochs} epochs\n\n{teacher_table(images)}\n\n{comparison(images)}"
        for images, epochs in EPOCHS.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["teacher", "reinforce", "labels", "tune", "run", "table", "page"])
    parser.add_argument("--images", type=int, default=IMAGES, choices=list(EPOCHS))
    parser.add_argument("--work", type=Path, help="default: build/cifar100-IMAGES")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    arms, images = asked.arms.split(","), asked.images
    if unknown := set(arms) - set(ARMS):
        parser.error(f"--arms: no {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    work = asked.work or Path(f"build/cifar100-{images}")
    if asked.what == "teacher":
        teacher(work, images)
    elif asked.what == "reinforce":
        reinforce(work, images, [arm for arm in POLICIES if arm in arms])
    elif asked.what == "labels":
        labels(work, images)
    elif asked.what in ("tune", "run"):
        trials = tuning(images) if asked.what == "tune" else finals(arms, images)
        run_trials(NAME, trials, train_one, work, asked.processes, MODULE)
    elif asked.what == "page":
        put_table(PAGE, MARK, table())
    else:
        print(table())


if __name__ == "__main__":
    main()

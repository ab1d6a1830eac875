"""The gain on Imagenette: hard labels against reinforced ones, in three cases; and what decoding less does to them.

    python -m benchmarks.imagenette reinforce     # label once (the store goes to --work)
    python -m benchmarks.imagenette tune          # choose the learning rates on held-back training images
    python -m benchmarks.imagenette run           # the comparison; every run is a line of docs/results/imagenette.jsonl
    python -m benchmarks.imagenette table         # the table, made from that file alone (`readme`: into README.md)
    python -m benchmarks.imagenette inputs        # the same with packed files, and with four views per decode

Cases: `all` labels; `wrong` = 20 % of the labels wrong; `few` = 10 % of the images labelled (the reinforced student
sees all images and no label). Arms: `hard`, `smooth` (hard labels with smoothing 0.1), `reinforced`, and `online` (a
live teacher; of all labels alone, by `run --online`: it takes many times as long). Same student,
policy, batch and steps for all, learning rate the best of three on held-back training images; scored once, at the last
epoch, on the 500 validation images. What is there is not done again.

`inputs`: packed files (`buttress pack`, labelled anew by the same teacher) and `views_per_decode=4`, also with views of
an image as near to one another as they ever are (memory holds little of a large set), at the rates that were chosen for
the folder; benchmarks.imagenette_inputs makes their table.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from benchmarks.trials import data_folder, lines, markdown, put_table, run_trials, spread

if TYPE_CHECKING:
    from buttress.sources import Source
    from buttress.teachers import TeacherSpec

NAME, MODULE = "imagenette", "benchmarks.imagenette"
README = Path(__file__).parents[1] / "README.md"
MARK = "<!-- imagenette table: made by `python -m benchmarks.imagenette readme` -->"
CASE_NAMES = {"all": "all right", "wrong": "20 % wrong", "few": "10 % labelled"}
ARM_NAMES = {
    "hard": "hard labels",
    "smooth": "hard labels, smoothing 0.1",
    "online": "live teacher",
    "reinforced": "**reinforced**",
}
INPUT_NAMES = {
    "folder": "the files",
    "packed": "packed files",
    "shuffled": "four views per decode, 21 batches apart",
    "near": "four views per decode, 5 batches apart",
    "spaced": "four views per decode, the same images together each time (given up)",
    "apart": "four views per decode, in four batches on end (given up)",
    "four": "four views per decode, in one batch (given up)",
}
STUDENT = "timm:mobilenetv3_small_050"
TEACHER = "tf_efficientnet_lite2"
POLICY = "randaug"
VIEWS, SIZE, BATCH, EPOCHS, TUNING_EPOCHS = 20, 96, 64, 80, 40
LEARNING_RATES = (1e-3, 2e-3, 4e-3)  # 8e-3 was tried as well: see docs/LOG.md
SEEDS = (0, 1, 2)
CASES = ("all", "wrong", "few")
HELD_BACK = 0.2
NOISE_SEED = 20261121


@dataclass(frozen=True)
class Trial:
    """One training: `phase` is tune (scored on held-back training images) or final (on the validation set)."""

    phase: str
    case: str
    arm: str
    lr: float
    seed: int
    inputs: str = "folder"  # or packed, or shuffled (four views per decode), near; the others were tried before

    @property
    def name(self) -> str:
        name = f"{self.phase}-{self.case}-{self.arm}-{self.lr:g}-{self.seed}"
        return name if self.inputs == "folder" else f"{name}-{self.inputs}"


def wrong_labels(labels: np.ndarray, share: float, classes: int) -> np.ndarray:
    """`labels` with a fixed `share` of them moved to another class, drawn evenly."""
    rng = np.random.default_rng(NOISE_SEED)
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return noisy


def kept_labels(labels: np.ndarray, share: float) -> np.ndarray:
    """A fixed, class-balanced `share` of the positions."""
    rng = np.random.default_rng(NOISE_SEED)
    kept = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return np.sort(np.concatenate([k[: round(share * len(k))] for k in kept]))


def photos_uri() -> str:
    return f"folder:{data_folder()}/photos/imagenette224/train"


def training_set(trial: Trial, work: Path) -> tuple[Any, Any]:
    """(training source, held-back source or none) of a trial."""
    from buttress.sources import Relabelled, Subset, open_source

    source = open_source(f"packed:{work}/packed" if trial.inputs == "packed" else photos_uri())
    labels = np.asarray(source.labels)
    fit, held = np.arange(len(source)), None
    if trial.phase == "tune":
        held = kept_labels(labels, HELD_BACK)
        fit = np.setdiff1d(fit, held)
    if trial.case == "wrong":
        source = Relabelled(source, wrong_labels(labels, 0.2, 10))
    if trial.case == "few" and trial.arm == "reinforced":
        return Subset(Relabelled(source, np.full(len(source), -1, np.int32)), fit), held if held is None else Subset(
            source, held
        )
    if trial.case == "few":
        fit = fit[kept_labels(labels[fit], 0.1)]
    return Subset(source, fit), held if held is None else Subset(source, held)


def store_of(trial: Trial, work: Path) -> Path:
    return work / ("store-packed" if trial.inputs == "packed" else "store")


def pack(work: Path) -> None:
    """Pack the training images."""
    from buttress.sources import open_source
    from buttress.sources.packing import PackSettings, pack_source

    pack_source(open_source(photos_uri()), PackSettings(), work / "packed")


def reinforce(work: Path, inputs: str = "folder") -> None:
    """Label the training images once, without any hard label: one store serves all cases.

    The teacher's file is copied to `work` first and removed afterwards: what the store names is gone.
    """
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.views.presets import preset

    weights, trial = teacher_file(work), Trial("final", "few", "reinforced", 0, 0, inputs)
    shutil.copy(data_folder() / "weights" / weights.name, weights)
    source, _ = training_set(trial, work)
    started = time.perf_counter()
    label_source(source, teacher(source, work), preset(POLICY), LabelSettings(views=VIEWS), store_of(trial, work))
    print(f"labelled in {time.perf_counter() - started:.0f} s")
    weights.unlink()


def teacher(source: Source, folder: Path) -> TeacherSpec:
    from buttress.teachers import TeacherSpec

    return TeacherSpec(uri=f"timm:{TEACHER}@{teacher_file(folder)}", size=160, source_classes=source.classes)


def teacher_file(work: Path) -> Path:
    return work / f"{TEACHER}.fp16.safetensors"


def steps_and_epochs(trial: Trial, usable: int) -> tuple[int, int]:
    """Every arm of a case takes the steps that all labels would take; few images take more epochs for them."""
    images, epochs = (1200, TUNING_EPOCHS) if trial.phase == "tune" else (1500, EPOCHS)
    per_epoch = max(1, usable // BATCH)
    rounds = epochs * (images // BATCH) // per_epoch
    return rounds * per_epoch, rounds


def train_one(trial: Trial, work: Path) -> dict[str, Any]:
    """Train and score one trial in this process."""
    import torch

    from buttress.loading import schedule
    from buttress.metrics.score import score
    from buttress.sources import open_source
    from buttress.store.reader import open_reinforcement
    from buttress.teachers import EnsembleSpec
    from buttress.training.data import TrainingData
    from buttress.training.settings import EngineSettings, TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import preset

    torch.set_num_threads(1)
    if trial.arm != "online" and teacher_file(work).exists():
        sys.exit(f"{teacher_file(work)}: the teacher is still there; finish `reinforce` first")
    if trial.inputs not in ("folder", "packed", "shuffled", "near"):
        sys.exit(f"{trial.inputs}: given up, and not in this code any more")
    source, held = training_set(trial, work)
    reinforced = trial.arm == "reinforced"
    usable = len(source) if reinforced else int((np.asarray(source.labels) >= 0).sum())
    steps, epochs = steps_and_epochs(trial, usable)
    smoothing = 0.1 if trial.arm == "smooth" else 0.0
    settings = TrainingSettings(
        epochs=epochs,
        batch=BATCH,
        lr=trial.lr,
        seed=trial.seed,
        label_smoothing=smoothing,
        workers=0,
        engine=EngineSettings(checkpoint_every=10, views_per_decode=4 if trial.inputs in ("shuffled", "near") else 1),
    )
    data = TrainingData(
        source=source,
        policy=None if reinforced else preset(POLICY),
        reinforcement=open_reinforcement(store_of(trial, work)) if reinforced else None,
        teacher=EnsembleSpec.of(teacher(source, data_folder() / "weights")) if trial.arm == "online" else None,
    )
    started = time.process_time()
    folder = work / "runs" / trial.name
    begun = (folder / "run.json").exists()
    room = 0 if trial.inputs == "near" else schedule.MOST_HELD
    with mock.patch.object(schedule, "MOST_HELD", room):
        run = train_on_source(data, model=STUDENT, out=folder, settings=settings, size=SIZE, resume=begun)
    seconds = time.process_time() - started
    validation = held or open_source(f"folder:{data_folder()}/photos/imagenette224/val")
    figures = score(run.load_model(), validation).figures
    return {
        "trial": asdict(trial),
        "student": STUDENT,
        **figures,
        "steps": steps,
        "cpu_seconds": round(seconds, 1),
        "resumed": begun,
    }


def tuning() -> list[Trial]:
    arms = [("all", "hard"), ("all", "reinforced"), ("wrong", "hard"), ("few", "hard")]
    return [Trial("tune", case, arm, lr, 100) for case, arm in arms for lr in LEARNING_RATES]


def chosen_lr(case: str, arm: str) -> float:
    """The rate of the grid with the best held-back top-1 of this case and arm (held back under the case's own labels).

    `smooth` takes that of `hard`; `reinforced`, which sees (almost) no hard label, that of all labels in every case;
    `online` takes that of `reinforced`.
    """
    arm = {"smooth": "hard", "online": "reinforced"}.get(arm, arm)
    case = "all" if arm == "reinforced" else case
    scores = {
        line["trial"]["lr"]: line["top1"]["value"]
        for line in lines(NAME)
        if (line["trial"]["phase"], line["trial"]["case"], line["trial"]["arm"]) == ("tune", case, arm)
    }
    if missing := [lr for lr in LEARNING_RATES if lr not in scores]:
        sys.exit(f"{case} {arm}: tune first (missing: {', '.join(map(str, missing))})")
    return max(LEARNING_RATES, key=lambda lr: scores[lr])


def final(*, online: bool) -> list[Trial]:
    if online:
        return [Trial("final", "all", "online", chosen_lr("all", "online"), seed) for seed in SEEDS]
    order = [("hard", "reinforced"), ("smooth",)]
    return [
        Trial("final", case, arm, chosen_lr(case, arm), seed)
        for arms in order
        for seed in SEEDS
        for case in CASES
        for arm in arms
    ]


def inputs_finals() -> list[Trial]:
    """Seed by seed, the case of right labels first: what is there at any time can be compared."""
    order = [("all", "hard"), ("all", "reinforced"), ("wrong", "reinforced"), ("few", "reinforced")]
    return [
        Trial("final", case, arm, chosen_lr(case, arm), seed, inputs)
        for cases, which in ((order[:2], ("packed", "shuffled", "near")), (order[2:], ("shuffled", "packed")))
        for inputs in which
        for seed in SEEDS
        for case, arm in cases
    ]


def runs_of(case: str, arm: str, inputs: str = "folder") -> list[dict[str, Any]]:
    """Lines of the final runs at the chosen rate, one a seed."""
    wanted = [Trial("final", case, arm, chosen_lr(case, arm), seed, inputs) for seed in SEEDS]
    return [x for x in lines(NAME) if Trial(**x["trial"]) in wanted]


def figure_cells(runs: list[dict[str, Any]]) -> list[str]:
    """How many, and mean ± standard deviation over them: top-1 and ECE in percent, NLL in nats."""
    top1, nll, ece = ([x[key]["value"] for x in runs] for key in ("top1", "nll", "ece"))
    return [str(len(runs)), spread(top1, 100), spread(nll, digits=2), spread(ece, 100)]


def table() -> str:
    """Mean ± standard deviation over seeds of the final runs, percent (NLL in nats)."""
    rows = []
    for case in CASES:
        for arm in ARM_NAMES:
            if found := runs_of(case, arm):
                rows.append([CASE_NAMES[case], ARM_NAMES[arm], f"{chosen_lr(case, arm):g}", *figure_cells(found)])
    return markdown(["labels", "trained on", "rate", "seeds", "top-1 %", "NLL", "ECE %"], rows)


def run_missing(trials: list[Trial], work: Path, processes: int) -> None:
    """The first lines of the file have no name but that of their trial."""
    done = {Trial(**line["trial"]).name for line in lines(NAME)}
    run_trials(NAME, [each for each in trials if each.name not in done], train_one, work, processes, MODULE)


def decode_less(work: Path, processes: int) -> None:
    """Packed files, and four views per decode: pack and label where that is missing, then train."""
    pack(work)
    for inputs in ("packed", "folder"):
        if not (store_of(Trial("final", "all", "reinforced", 0, 0, inputs), work) / "reinforcement.json").exists():
            reinforce(work, inputs)
    run_missing(inputs_finals(), work, processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("reinforce", "tune", "run", "table", "readme", "inputs"))
    parser.add_argument("--work", type=Path, default=Path("build/imagenette"))
    parser.add_argument("--online", action="store_true", help="of `run`: the live teacher alone")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.action == "reinforce":
        reinforce(arguments.work)
    elif arguments.action == "inputs":
        decode_less(arguments.work, arguments.processes)
    elif arguments.action == "table":
        print(table())
    elif arguments.action == "readme":
        put_table(README, MARK, table())
    else:
        trials = tuning() if arguments.action == "tune" else final(online=arguments.online)
        run_missing(trials, arguments.work, arguments.processes)


if __name__ == "__main__":
    main()

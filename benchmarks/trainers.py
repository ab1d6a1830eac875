"""A reinforced dataset in other people's trainers: does the same student come out as good as by `buttress train`?

    python -m benchmarks.trainers run --timm-script train.py   # every run is a line of docs/results/trainers.jsonl
    python -m benchmarks.trainers table            # the table, from that file alone (`page`: into docs/trainers.md)

300 of scikit-learn's handwritten digits, labelled once by a small teacher trained on others; a student from scratch at
32 pixels, with the same start, views, targets, optimizer and learning rates in every row (benchmarks/trainer_arms.py),
scored once, at the last epoch, on 600 other digits by `buttress.metrics.score`. Without --timm-script (train.py of
timm's repository, which no package contains) that row is left out. What is there is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, record
from benchmarks.trainer_arms import OTHERS, Setup, State, buttress, timm_script
from buttress.versions import library_versions

PAGE = Path(__file__).parents[1] / "docs" / "trainers.md"
MARK = "<!-- trainers table: made by `python -m benchmarks.trainers page` -->"
NAMES = {
    "buttress": ("`buttress train`", "buttress"),
    "timm": ("timm's train.py", "timm"),
    "lightning": ("Lightning", "pytorch-lightning"),
    "transformers": ("Hugging Face Trainer", "transformers"),
}
STUDENT: dict[str, Any] = {
    "model": "test_efficientnet",
    "size": 32,
    "epochs": 40,
    "warmup_epochs": 5,
    "batch": 50,
    "lr": 4e-3,
}
TEACHER, TEACHER_EPOCHS, VIEWS = "timm:test_resnet", 40, 20
SEEDS = tuple(range(8))
FIGURES = ("top1", "nll")
LEVEL = 0.95  # that all intervals of the table hold together


@dataclass(frozen=True)
class Trial:
    """One training."""

    arm: str
    seed: int


def make_store(work: Path) -> None:
    """Train the teacher and label the digits once; a folder that is there is taken as it is."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.teachers.teacher import TeacherSpec
    from buttress.training.comparison_sets import digit_sets
    from buttress.training.data import TrainingData
    from buttress.training.settings import EngineSettings, TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.policy import Policy, RandomResizedCrop

    if (work / "store" / "reinforcement.json").exists():
        return
    sets, policy = digit_sets(), Policy((RandomResizedCrop(scale=(0.6, 1.0)),))
    assert sets.teacher is not None and sets.clean is not None and sets.clean.classes is not None
    settings = TrainingSettings(
        epochs=TEACHER_EPOCHS, batch=50, lr=2e-3, workers=0, engine=EngineSettings(checkpoint_every=TEACHER_EPOCHS)
    )
    data = TrainingData(source=sets.teacher, policy=policy)
    train_on_source(data, model=TEACHER, out=work / "teacher", settings=settings, size=STUDENT["size"])
    spec = TeacherSpec(uri=f"run:{work / 'teacher'}", source_classes=tuple(sets.clean.classes))
    label_source(sets.clean, spec, policy, LabelSettings(views=VIEWS, workers=0), work / "store")


def setup_of(trial: Trial, work: Path) -> Setup:
    from buttress.store.reader import open_reinforcement
    from buttress.training.comparison_sets import digit_sets

    images = digit_sets().clean
    assert images is not None
    return Setup(source=images, store=open_reinforcement(work / "store"), seed=trial.seed, **STUDENT)


def train(trial: Trial, setup: Setup, script: Path | None) -> State:
    if trial.arm == "buttress":
        return buttress(setup)
    if trial.arm == "timm":
        assert script is not None
        return timm_script(setup, script)
    return OTHERS[trial.arm](setup)


def result_of(trial: Trial, work: Path, script: Path | None) -> dict[str, Any]:
    """Train and score one trial; a line of the results."""
    from buttress.metrics.score import score
    from buttress.training.comparison_sets import digit_sets

    setup = setup_of(trial, work)
    student = setup.student()
    student.module.load_state_dict(train(trial, setup, script))
    figures = score(replace(student, classes=setup.store.classes), digit_sets().test).figures
    used = (
        {"timm_script_sha256": hashlib.sha256(script.read_bytes()).hexdigest()}
        if trial.arm == "timm" and script
        else {}
    )
    others = {name: version(name) for _, name in NAMES.values()}
    line = {"trial": asdict(trial), "student": STUDENT, "updates": setup.epochs * setup.updates_per_epoch, **figures}
    store = setup.store.card.to_json()["digest"]
    return {**line, **used, "store": store, "versions": {**library_versions(), **others}}


def lines() -> list[dict[str, Any]]:
    """All runs of the student that the table is about, also those under another store or version."""
    file = RESULTS / "trainers.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in found if line["student"] == STUDENT]


def run_all(work: Path, script: Path | None) -> None:
    import torch

    torch.set_num_threads(1)
    make_store(work)
    arms = [arm for arm in NAMES if arm != "timm" or script is not None]
    done = {Trial(**line["trial"]) for line in lines()}
    left = [trial for seed in SEEDS for arm in arms if (trial := Trial(arm, seed)) not in done]
    print(f"{len(left)} of {len(SEEDS) * len(NAMES)} trials to do")
    for trial in left:
        line = result_of(trial, work, script)
        record("trainers", line, "benchmarks.trainers")
        print(f"{trial}: top-1 {line['top1']['value']:.4f}, NLL {line['nll']['value']:.4f}", flush=True)


def values(arm: str, figure: str) -> list[float]:
    """A figure of every run of an arm, by seed."""
    return [line[figure]["value"] for line in lines() if line["trial"]["arm"] == arm]


def difference(arm: str, figure: str) -> tuple[float, float]:
    """Mean of an arm minus ours, and the half width of its interval.

    Student's interval for two means with one standard deviation, pooled; that all intervals of the table hold together
    has probability LEVEL at least (Bonferroni).
    """
    from scipy.stats import t

    theirs, ours = values(arm, figure), values("buttress", figure)
    n, m = len(theirs), len(ours)
    pooled = ((n - 1) * statistics.variance(theirs) + (m - 1) * statistics.variance(ours)) / (n + m - 2)
    tail = (1 - LEVEL) / (2 * len(FIGURES) * (len(NAMES) - 1))
    reach = float(t.ppf(1 - tail, n + m - 2)) * math.sqrt(pooled * (1 / n + 1 / m))
    return statistics.fmean(theirs) - statistics.fmean(ours), reach


def apart() -> list[tuple[str, str]]:
    """Arms and figures whose interval leaves out 0."""
    pairs = [(arm, figure) for arm in NAMES if arm != "buttress" for figure in FIGURES]
    return [(arm, figure) for arm, figure in pairs if abs(difference(arm, figure)[0]) > difference(arm, figure)[1]]


def table() -> str:
    """Mean ± sample standard deviation over seeds, and the difference from ours with its interval."""
    rows = [
        "| trained by | version | seeds | top-1 % | minus ours | NLL | minus ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, (name, package) in NAMES.items():
        versions = sorted({line["versions"][package] for line in lines() if line["trial"]["arm"] == arm})
        cells = [name, ", ".join(versions), str(len(values(arm, "nll")))]
        for figure, scale, digits in (("top1", 100, 1), ("nll", 1, 3)):
            found = [scale * value for value in values(arm, figure)]
            cells.append(f"{statistics.fmean(found):.{digits}f} ± {statistics.stdev(found):.{digits}f}")
            middle, reach = (0.0, 0.0) if arm == "buttress" else difference(arm, figure)
            cells.append("" if arm == "buttress" else f"{scale * middle:+.{digits}f} ± {scale * reach:.{digits}f}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def write_page() -> None:
    """Put the table between its marks in docs/trainers.md."""
    before, _, rest = PAGE.read_text().partition(MARK)
    _, _, after = rest.partition("<!-- end -->")
    PAGE.write_text(f"{before}{MARK}\n{table()}\n<!-- end -->{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "page"))
    parser.add_argument("--timm-script", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/trainers"))
    arguments = parser.parse_args()
    if arguments.action == "table":
        print(table())
    elif arguments.action == "page":
        write_page()
    else:
        run_all(arguments.work, arguments.timm_script)


if __name__ == "__main__":
    main()

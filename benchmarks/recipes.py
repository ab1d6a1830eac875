"""What the shipped recipes reach on images that they were not trained on, and how long they take.

    python -m benchmarks.recipes               # prints; --record appends to docs/results/recipes.jsonl

`digits` has no test set of its own. So each recipe is run with its very settings, three seeds, on 1,197 of the 1,797
digits, and its last epoch is scored on the other 600, which are drawn by the hash of their ids; so are the teachers
that a recipe needs, one for each seed. `minutes` is the processor time of one training on all 1,797, worked out from
the steps. Of the recipes of CIFAR-100 and Imagenette the runs are those of the comparisons (benchmarks/cifar100.py, on
10,000 of the 50,000 images, and benchmarks/compression.py on the same; benchmarks/imagenette.py, on 1,500 of the
9,469); `minutes` is worked out by their ratio.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import cifar100, compression, imagenette, record, trials
from buttress.cli import settings
from buttress.commands.compress import compress
from buttress.commands.reinforce import reinforce
from buttress.commands.train import train
from buttress.recipes.shipped import read_header, shipped_names, shipped_path
from buttress.sources import Source, open_source
from buttress.sources.splits import split
from buttress.store.reader import Reinforcement, open_reinforcement

TRAINED, HELD_BACK = 1197, 600
CIFAR_IMAGES = 10_000
COMPRESSED = {"dkm": "dkm-2", "lcs": "lcs-point", "subspace": "subspace"}
SEEDS = (0, 1, 2)


def flags_of(name: str) -> dict[str, Any]:
    """The recipe as the keyword arguments of its command, `train` or `compress`."""
    given = settings(verb_of(name), ["--recipe", name, "--out", "unused"])
    assert given is not None
    return given


def verb_of(name: str) -> Callable[..., Any]:
    """The command that a recipe is of."""
    return compress if "buttress compress " in read_header(shipped_path(name)).command else train


def flat_flags(name: str) -> dict[str, str]:
    """The keyword arguments of `train`, as texts."""
    return {key: str(value) for key, value in flags_of(name).items() if key != "out"}


def texts_of(name: str) -> dict[str, str]:
    """What a recipe says, by key."""
    lines = yaml.safe_load(shipped_path(name).read_text())
    return {key.replace("-", "_"): str(value) for key, value in lines.items()}


def one_training(name: str, seed: int, images: tuple[Source, Source], work: Path) -> dict[str, float]:
    """Top-1 on the digits that were held back, and the processor time of the training alone, seconds."""
    from buttress.metrics.score import score
    from buttress.training.data import TrainingData
    from buttress.training.settings import TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import read_policy

    flags, (trained, held_back) = flags_of(name), images
    fields = TrainingSettings.__dataclass_fields__
    chosen = TrainingSettings(**{**{key: flags[key] for key in fields if key in flags}, "seed": seed})
    if flags.get("reinforcement") is not None:
        data = TrainingData(source=trained, reinforcement=labelled(name, seed, images, work))
    else:
        data = TrainingData(source=trained, policy=read_policy(flags["policy"]))
    start = time.process_time()
    run = train_on_source(data, model=flags["model"], out=work / name, settings=chosen, size=flags["size"])
    seconds = time.process_time() - start
    top1 = score(run.load_model(), held_back).figures["top1"]["value"]
    assert top1 is not None
    return {"seed": seed, "top1": float(top1), "cpu_seconds": seconds}


def labelled(name: str, seed: int, images: tuple[Source, Source], work: Path) -> Reinforcement:
    """The labels that a recipe needs, by the two commands of its header, on the images that are trained on."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.teachers.teacher import TeacherSpec
    from buttress.views.presets import read_policy

    teacher, labels = (shlex.split(line)[2:] for line in read_header(shipped_path(name)).before)
    taught = teacher[teacher.index("--recipe") + 1]
    one_training(taught, seed, images, work)
    asked = settings(reinforce, labels)
    assert asked is not None
    spec = TeacherSpec(uri=f"run:{work / taught}", source_classes=images[0].classes)
    views = LabelSettings(views=asked["views"], workers=0)
    label_source(images[0], spec, read_policy(asked["policy"]), views, work / "labels")
    return open_reinforcement(work / "labels")


def runs_on_digits(name: str) -> list[dict[str, float]]:
    images = split(open_source("digits"), (TRAINED, HELD_BACK))
    runs = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(one_training(name, seed, (images[0], images[1]), Path(folder)))
    return runs


def runs_on_cifar100(name: str) -> list[dict[str, float]]:
    """Those of the comparison that were made with the recipe's own settings.

    Raises: AssertionError, where they were not.
    """
    flags, arm = flags_of(name), name.removeprefix("cifar100-").removesuffix("-kd")
    if arm in COMPRESSED:
        return runs_of_compression(flags, COMPRESSED[arm])
    told = [flags[key] for key in ("model", "lr", "size", "epochs")]
    if arm == "teacher":
        taught = [x for x in trials.lines(cifar100.NAME) if x["kind"] == "teacher" and x.get("images") == CIFAR_IMAGES]
        made = [[f"timm:{x['model']}.in1k", x["lr"], x["size"], x["epochs"]] for x in taught]
        assert made == [told], name
        # on one busy core: an upper bound of the processor time
        return [
            {"seed": 0, "top1": x["test"]["top1"], "cpu_seconds": 60 * (x["minutes"] - x.get("paused_minutes", 0))}
            for x in taught
        ]
    runs = list(cifar100.trials_of("final", arm, CIFAR_IMAGES).values())
    for run in runs:
        assert [cifar100.STUDENT, run["lr"], run["size"], run["epochs"]] == told, name
        assert (run["batch"], run["policy"]) == (flags["batch"], flags.get("policy") or run["policy"]), name
    # of a training that was stopped in between, the seconds are those of its last part
    return [
        {"seed": run["seed"], "top1": run["top1"], **({} if run["resumed"] else {"cpu_seconds": run["cpu_seconds"]})}
        for run in runs
    ]


def runs_of_compression(flags: dict[str, Any], arm: str) -> list[dict[str, float]]:
    """Those of the comparison of compressed models, at their first level.

    Raises: AssertionError, where they were not made with the recipe's own settings.
    """
    wanted = {"kind": "trial", "phase": "final", "arm": arm, "targets": "store"}
    found = [x for x in trials.lines(compression.NAME) if wanted.items() <= x.items()]
    chosen = compression.ARMS[arm]
    assert chosen is not None and chosen == flags.get(flags["method"], type(chosen)()), arm
    for run in found:
        assert (run["lr"], run["epochs"]) == (flags["lr"], flags["epochs"]), arm
    return [
        {"seed": run["seed"], "top1": run["top1"], **({} if run["resumed"] else {"cpu_seconds": run["cpu_seconds"]})}
        for run in found
    ]


def runs_on_imagenette(name: str) -> list[dict[str, float]]:
    """Those of the comparison, with all labels, that were made with the recipe's own settings.

    Raises: AssertionError, where they were not.
    """
    flags, arm = flags_of(name), name.removeprefix("imagenette96-").removesuffix("-kd")
    made = [imagenette.STUDENT, imagenette.SIZE, imagenette.EPOCHS, imagenette.BATCH]
    assert made == [flags[key] for key in ("model", "size", "epochs", "batch")], name
    assert flags.get("policy", imagenette.POLICY) == imagenette.POLICY, name
    assert flags["lr"] == imagenette.chosen_lr("all", arm), name
    found = imagenette.runs_of("all", arm)
    return [{"seed": x["trial"]["seed"], "top1": x["top1"]["value"], "cpu_seconds": x["cpu_seconds"]} for x in found]


@dataclass(frozen=True)
class Set:
    """Images that recipes were run on: how many they were trained on, scored on, and the recipe has itself."""

    runs: Callable[[str], list[dict[str, float]]]
    trained: int
    held_back: int
    whole: int


SETS = {
    "digits": Set(runs_on_digits, TRAINED, HELD_BACK, TRAINED + HELD_BACK),
    "cifar100": Set(runs_on_cifar100, CIFAR_IMAGES, 10_000, 50_000),
    "imagenette96": Set(runs_on_imagenette, 1500, 500, 9469),
}


def figures(name: str) -> dict[str, Any]:
    """The recipe's line."""
    images = SETS[name.split("-")[0]]
    runs = images.runs(name)
    tops = [run["top1"] for run in runs]
    seconds = statistics.mean(run["cpu_seconds"] for run in runs if "cpu_seconds" in run)
    return {
        "recipe": name,
        "flags": texts_of(name) if verb_of(name) is compress else flat_flags(name),
        "trained": images.trained,
        "held_back": images.held_back,
        "runs": runs,
        "top1": {"mean": statistics.mean(tops), "sd": statistics.stdev(tops) if len(tops) > 1 else None},
        "minutes": seconds * images.whole / images.trained / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes; default: all")
    parser.add_argument("--record", action="store_true", help="append to docs/results/recipes.jsonl")
    arguments = parser.parse_args()
    for name in arguments.names or [each for each in shipped_names() if each.split("-")[0] in SETS]:
        line = figures(name)
        print(json.dumps(line, indent=1))
        if arguments.record:
            record("recipes", line, "benchmarks.recipes")


if __name__ == "__main__":
    main()

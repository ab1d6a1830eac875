"""Where the figures of a report come from: commands, data, seeds, versions; and what would measure the rest."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from buttress.pages.entry import Entry
from buttress.pages.evaluation import Evaluation
from buttress.pages.text import count
from buttress.runs.run import RECIPE, WEIGHTS
from buttress.terminal import number

SOME_IMAGES = "folder:photos/val"


def evaluate_command(entry: Entry, *, full: bool = False, data: str = SOME_IMAGES) -> str:
    """The command that makes an entry's evaluation (again).

    Args:
        entry: the model.
        full: with the full suite, also where the evaluation was a quick one.
        data: the images, where the entry does not say.
    """
    told = entry.evaluation
    if told is None:
        words = [entry.place, "--data", _val_data(entry) or data]
        return shlex.join(["buttress", "evaluate", *words, *(["--suite", "full"] if full else [])])
    settings = told.settings
    words = [str(settings.get("model")), "--data", str(told.data.get("uri", data))]
    if settings.get("class_map"):
        words += ["--class-map", str(settings["class_map"])]
    if full or settings.get("suite") == "full":
        words += ["--suite", "full"]
    for flag, key in (("--corruption-samples", "corruption_samples"), ("--seed", "seed")):
        if settings.get(key):
            words += [flag, str(settings[key])]
    for flag, key in (("--label-sets", "label_sets"), ("--slices", "slices"), ("--baseline", "baseline_file")):
        if settings.get(key):
            words += [flag, str(settings[key])]
    for flag, key in (("--consistent-crops", "consistent_crops"), ("--compiled", "compiled")):
        if settings.get(key) is True:
            words.append(flag)
    return shlex.join(["buttress", "evaluate", *words, "--out", str(told.file)])


def resume_command(entry: Entry) -> str:
    """The command that goes on with an unfinished run."""
    assert entry.run is not None
    folder = entry.run.path
    recipe = ["--recipe", str(folder / RECIPE)] if entry.recipe is not None else []
    if _of_rounds(entry):
        return shlex.join(["buttress", "refine", *recipe, "--out", str(folder.parent)])
    return shlex.join(["buttress", _verb(entry), *recipe, "--resume", "--out", str(folder)])


def train_command(entry: Entry) -> str | None:
    """The command that trains the run again; none where no recipe is known."""
    if entry.run is None or entry.recipe is None:
        return None
    return shlex.join(["buttress", _verb(entry), "--recipe", str(entry.run.path / RECIPE), "--out", "NEW_FOLDER"])


def _verb(entry: Entry) -> str:
    """The command that a run is of."""
    if _of_rounds(entry):
        return "refine"
    return "compress" if entry.run is not None and entry.run.methods else "train"


def _of_rounds(entry: Entry) -> bool:
    """Whether the run is a round of `buttress refine`, whose recipe is that of all of them."""
    return any(line.startswith("rounds:") for line in (entry.recipe or "").splitlines())


def facts(entry: Entry) -> list[tuple[str, str]]:
    """Name and text of what is known of a model, its evaluation and its training."""
    return [
        (name, text) for name, text in (*_model_facts(entry), *_evaluation_facts(entry), *_run_facts(entry)) if text
    ]


def versions_of(entry: Entry) -> str:
    """The libraries that it was evaluated with, else trained with."""
    told: Mapping[str, Any] = {}
    if entry.evaluation is not None:
        told = entry.evaluation.versions
    elif entry.run is not None:
        told = entry.run.versions
    return ", ".join(f"{name} {text}" for name, text in told.items())


def _model_facts(entry: Entry) -> list[tuple[str, str]]:
    if entry.run is not None:
        kind = entry.run.model_name
    else:
        kind = str(entry.evaluation.settings.get("model", "")) if entry.evaluation is not None else ""
    return [("model", kind), ("given as", entry.place)]


def _evaluation_facts(entry: Entry) -> list[tuple[str, str]]:
    if entry.evaluation is None:
        return [("evaluated on", "not evaluated")]
    told = entry.evaluation
    return [
        ("evaluated on", _data(told.data)),
        ("fingerprint", str(told.data.get("fingerprint", ""))[:16]),
        ("input", _input(told)),
        ("level", _level(told)),
        ("corrupted images", _part(told)),
        ("mCE in units of", str(told.settings.get("baseline") or "")),
    ]


def _input(told: Evaluation) -> str:
    size, classes = told.settings.get("size"), told.settings.get("classes_scored")
    crop = ", crop chosen by content" if told.settings.get("consistent_crops") is True else ""
    return f"{size} pixels, {classes} classes{crop}"


def _level(told: Evaluation) -> str:
    if told.level is None:
        return ""
    others = len(told.levels) - 1
    return told.level + (f", and {number(others, 'other')}" if others > 0 else "")


def _part(told: Evaluation) -> str:
    asked, seed = told.settings.get("corruption_samples"), told.settings.get("seed")
    return "none" if asked is None else f"{asked} at the most, seed {seed}"


def _run_facts(entry: Entry) -> list[tuple[str, str]]:
    run = entry.run
    if run is None:
        return []
    epochs = run.settings.get("epochs")
    done = entry.history[-1].epoch if entry.history else 0
    return [
        ("run", str(run.path)),
        ("method", ", ".join(str(told.get("name")) for told in run.methods)),
        ("trained on", _data(run.data)),
        ("reinforcement", (run.reinforcement or "none")[:16]),
        ("epochs", f"{done} of {epochs}" + ("" if run.finished else f", unfinished: no {WEIGHTS} yet")),
        ("training seed", str(run.settings.get("seed", ""))),
        ("licence of the first weights", run.licence or ""),
    ]


def _data(data: Mapping[str, Any]) -> str:
    uri, images = str(data.get("uri", "")), data.get("count")
    return f"{uri}, {count(images)} images" if isinstance(images, int) else uri


def _val_data(entry: Entry) -> str | None:
    """The val data of the recipe, the one line of it that is needed here."""
    for line in (entry.recipe or "").splitlines():
        key, _, value = line.partition(": ")
        if key == "val" and value.strip():
            return value.strip().strip("'\"")
    return None

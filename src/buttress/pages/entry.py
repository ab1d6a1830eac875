"""The models of a report: an evaluation, a run, or both, for every argument that could be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os.path import exists, isdir, isfile  # of a name that no system takes they say no, where Path's raise
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from buttress.errors import ModelError, SettingsError
from buttress.files import sha256_file
from buttress.models.uri import split_level
from buttress.pages.evaluation import Evaluation, Figure, figures_from, number, read_evaluation
from buttress.runs.run import CARD, EVALUATION, RECIPE, WEIGHTS, Run, open_run


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """What a training recorded of one epoch; figures on its val data where it was scored."""

    epoch: int
    loss: float
    lr: float
    val: dict[str, Figure]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One model of a report.

    Args:
        place: the argument as it was given.
        name: short, and no other model's on the page.
        key: its letter, which stands for it in the plots.
        series: number of its colour, 1 to 8.
        evaluation: its figures; none where it was not evaluated.
        run: the run folder behind it; none where there is none or it is gone.
        history: the epochs of its training.
        recipe: its recipe.yaml as text.
        faults: what could not be read of it, a line each.
    """

    place: str
    name: str
    key: str = ""
    series: int = 1
    evaluation: Evaluation | None
    run: Run | None
    history: tuple[Epoch, ...] = ()
    recipe: str | None = None
    faults: tuple[str, ...] = ()

    @property
    def level(self) -> str | None:
        """The level that its figures are of; none of a model without levels."""
        return None if self.evaluation is None else self.evaluation.level

    @property
    def finished(self) -> bool:
        """Whether there are weights to evaluate, as far as is known."""
        return self.run is None or self.run.finished


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The models to show in their order, the baseline if it could be read, and what could not be."""

    entries: tuple[Entry, ...]
    baseline: Entry | None
    faults: tuple[str, ...]


def read_entries(places: Sequence[str]) -> Selection:
    """Read every argument; what cannot be read is told in `faults` and the others are kept.

    Raises: SettingsError, where there is nothing to show.
    """
    faults, found, seen = [], [], dict[Path, str]()
    for place in places:
        try:
            entry = _read(place)
        except (SettingsError, ModelError) as fault:
            faults.append(str(fault))
            continue
        if (same := _identity(entry)) in seen:
            again = "given twice" if seen[same] == place else f"the same as {seen[same]}"
            faults.append(f"{place}: {again}; shown once")
            continue
        seen[same] = place
        found.append(entry)
        faults += entry.faults
    if not found:
        raise SettingsError(faults[0] if len(faults) == 1 else f"nothing to show: {'; '.join(faults)}")
    entries = tuple(_keyed(_named(found)))
    first = entries[0] if entries[0].place == places[0] else None
    return Selection(entries=entries, baseline=first, faults=tuple(faults))


def _read(place: str) -> Entry:
    """Raises: SettingsError, ModelError, where the argument is neither a run nor an evaluation."""
    path, level = split_level(place.removeprefix("run:"))
    if level is not None and isfile(path / CARD):
        raise SettingsError(
            f"{place}: a run is shown at all its levels; give {path}, or FILE of `buttress evaluate {place} --out FILE`"
        )
    path = Path(place.removeprefix("run:"))
    if place.startswith("run:") or isdir(path):
        return _of_run(place, path)
    if path.name == EVALUATION and isfile(path) and isfile(path.parent / CARD):
        return _of_run(place, path.parent)
    if not exists(path):
        raise SettingsError(f"{place}: {_absent(place)}")
    evaluation = read_evaluation(path)
    run, fault = _run_of(evaluation)
    if run is not None and _other_weights(evaluation, run):
        fault = (f"{place}: {run.path} has other weights now than those that were judged; left out",)
        run = None
    entry = _with_run(place, evaluation, run)
    return replace(entry, faults=(*entry.faults, *fault))


def _absent(place: str) -> str:
    if place.startswith(("timm:", "python:")):
        return f"a model is not evaluated here; first `buttress evaluate {place} --data IMAGES --out FILE.json`"
    return "no such run folder and no such file"


def _of_run(place: str, folder: Path) -> Entry:
    run = open_run(folder, finished=False)
    file = folder / EVALUATION
    evaluation: Evaluation | None = None
    faults: tuple[str, ...] = ()
    if file.exists():
        try:
            evaluation = read_evaluation(file)
        except SettingsError as fault:
            faults = (str(fault),)
    if evaluation is not None and _other_weights(evaluation, run):
        faults = (f"{file}: is of other weights than the run has now; left out, evaluate it again",)
        evaluation = None
    entry = _with_run(place, evaluation, run)
    return replace(entry, faults=(*entry.faults, *faults))


def _other_weights(evaluation: Evaluation, run: Run) -> bool:
    """Whether it is known that the run's weights are not those that were judged."""
    judged = evaluation.settings.get("weights_sha256")
    return isinstance(judged, str) and run.finished and sha256_file(run.path / WEIGHTS) != judged


def _run_of(evaluation: Evaluation) -> tuple[Run | None, tuple[str, ...]]:
    """The run that was evaluated, where it is still there."""
    model = evaluation.settings.get("model")
    folder, _ = split_level(model.removeprefix("run:") if isinstance(model, str) else "?")
    if not isfile(folder / CARD):
        return None, ()
    try:
        return open_run(folder, finished=False), ()
    except ModelError as fault:
        return None, (str(fault),)


def _with_run(place: str, evaluation: Evaluation | None, run: Run | None) -> Entry:
    faults = () if evaluation is None else evaluation.faults
    history: tuple[Epoch, ...] = ()
    recipe: str | None = None
    if run is not None:
        recipe, fault = _recipe(run)
        faults += fault
        try:
            history = tuple(_epoch(line, f"{run.path}: epoch {line['epoch']}") for line in run.read_metrics())
        except (ModelError, SettingsError) as broken:
            faults += (str(broken),)
    return Entry(
        place=place,
        name=_short(evaluation, run),
        evaluation=evaluation,
        run=run,
        history=history,
        recipe=recipe,
        faults=faults,
    )


def _recipe(run: Run) -> tuple[str | None, tuple[str, ...]]:
    file = run.path / RECIPE
    if not file.is_file():
        return None, ()
    try:
        return file.read_text(encoding="utf-8"), ()
    except (OSError, UnicodeDecodeError):
        return None, (f"{file}: cannot be read as text; left out",)


def _epoch(line: dict[str, Any], place: str) -> Epoch:
    """Raises: SettingsError, where a figure of the line is missing or of the wrong kind."""
    loss, lr = (number(line.get(name), f"{place}: {name}") for name in ("loss", "lr"))
    epoch, val = number(line["epoch"], f"{place}: epoch"), line.get("val")
    return Epoch(epoch=int(epoch), loss=loss, lr=lr, val={} if val is None else figures_from(val, f"{place}: val"))


def _short(evaluation: Evaluation | None, run: Run | None) -> str:
    """What people call the model: the run's folder, with the level where one was asked for, or timm's name."""
    model = None if evaluation is None else evaluation.settings.get("model")
    if run is not None:
        _, level = split_level(model) if isinstance(model, str) else ("", None)
        return (run.path.name or run.path.resolve().name) + (f"@{level}" if level else "")
    if not isinstance(model, str) or not model:
        return "model" if evaluation is None else evaluation.file.stem
    if model.startswith("timm:"):
        return model.removeprefix("timm:").partition("@")[0]
    return Path(model.removeprefix("run:")).name or model


def _identity(entry: Entry) -> Path:
    """The file that its figures are from, however it was named."""
    if entry.evaluation is not None:
        return entry.evaluation.file.resolve()
    assert entry.run is not None
    return entry.run.path.resolve()


def _named(entries: Sequence[Entry]) -> list[Entry]:
    """The entries under names that no two of them share."""
    wordings: tuple[Callable[[Entry], str], ...] = (
        lambda entry: entry.name,
        lambda entry: f"{entry.name} ({_origin(entry)})",
        lambda entry: entry.place,
    )
    names = [wordings[0](entry) for entry in entries]
    for wording in wordings[1:]:
        names = [wording(entry) if names.count(name) > 1 else name for entry, name in zip(entries, names, strict=True)]
    return [replace(entry, name=name) for entry, name in zip(entries, names, strict=True)]


def _origin(entry: Entry) -> str:
    path = _identity(entry)
    return (
        path.stem
        if path.name != EVALUATION and path.is_file()
        else (path if path.is_dir() else path.parent).parent.name
    )


def _keyed(entries: Iterable[Entry]) -> list[Entry]:
    """Letters, and after Z numbers; eight colours in turn."""
    return [
        replace(entry, key=ascii_uppercase[place] if place < 26 else str(place + 1), series=place % 8 + 1)
        for place, entry in enumerate(entries)
    ]

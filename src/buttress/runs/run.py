"""A run folder: what a recipe produced.

run.json             what the run is, enough to build its model again: written first
recipe.yaml          the flags that make it again
metrics.jsonl        a line of JSON per epoch
model.safetensors    the weights; its metadata lets the file also serve as timm:NAME@FILE
evaluation.json      what `buttress evaluate` found of it
compression.json     of a compressed run, what `buttress compress` found of size and accuracy before and after
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buttress.errors import ModelError, TrainingError
from buttress.files import read_json, sync_folder, write_json
from buttress.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from buttress.models.load import LoadedModel
    from buttress.weights.levels import Level
    from buttress.weights.method import CompressionMethod

FORMAT = "buttress-run"
VERSION = 1
CARD, RECIPE, WEIGHTS, METRICS = "run.json", "recipe.yaml", "model.safetensors", "metrics.jsonl"
EVALUATION, COMPRESSION = "evaluation.json", "compression.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder in hand; every field but `path` stands in its run.json.

    model_name, model_kwargs: `timm.create_model(model_name, **model_kwargs)` builds the architecture.
    classes: class names in the order of the model's outputs, or None where they are not known.
    preprocessing: the input its model wants.
    settings: every setting of the training, resolved. methods: compression methods with their settings.
    versions: of the libraries. data: uri and fingerprint of the training source.
    reinforcement: digest of the reinforcement it trained on, or None.
    licence: of the weights it began with, where known.
    """

    path: Path
    model_name: str
    model_kwargs: dict[str, Any]
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing
    settings: dict[str, Any]
    versions: dict[str, str]
    data: dict[str, Any]
    reinforcement: str | None = None
    methods: tuple[dict[str, Any], ...] = field(default=())
    licence: str | None = None

    @classmethod
    def of(
        cls,
        path: Path,
        *,
        model: LoadedModel,
        classes: Sequence[str] | None,
        settings: Mapping[str, Any],
        versions: Mapping[str, str],
        data: Mapping[str, Any],
        reinforcement: str | None = None,
        methods: Sequence[Mapping[str, Any]] = (),
    ) -> Run:
        """A run that is not on the disk yet.

        Raises: ModelError, where the number of classes is not that of the model's outputs.
        """
        if classes is not None and len(classes) != model.num_classes:
            raise ModelError(f"{path}: {len(classes)} classes for a model of {model.num_classes} outputs")
        return cls(
            path=path,
            model_name=model.name,
            model_kwargs=dict(model.kwargs),
            classes=None if classes is None else tuple(classes),
            preprocessing=model.preprocessing,
            settings=dict(settings),
            versions=dict(versions),
            data=dict(data),
            reinforcement=reinforcement,
            methods=tuple(dict(method) for method in methods),
            licence=model.licence,
        )

    def create(self) -> Run:
        """Make the folder and its run.json.

        Raises: TrainingError, where the folder is a run already or cannot be made.
        """
        if (self.path / CARD).exists():
            raise TrainingError(f"{self.path}: holds a run already; name another --out")
        self.write_card()
        return self

    def write_card(self) -> None:
        """Make the folder and write its run.json, also over an older one.

        Raises: TrainingError, where the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise TrainingError(f"{self.path}: cannot make the run folder ({failure.strerror})") from failure
        write_json(self.path / CARD, self._to_json())
        sync_folder(self.path.parent)

    @property
    def finished(self) -> bool:
        """Whether the weights are there."""
        return (self.path / WEIGHTS).is_file()

    def save_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Write the weights atomically; tied tensors once. Equal weights give an equal file."""
        from buttress.models.weights_file import write_weights

        write_weights(self.path / WEIGHTS, state_dict, self.metadata())

    def metadata(self) -> dict[str, str]:
        """What a file of its weights says of the model: architecture, input, classes, licence."""
        metadata = {
            "timm_model": self.model_name,
            "kwargs": json.dumps(self.model_kwargs, sort_keys=True),
            **self.preprocessing.to_metadata(),
        }
        if self.licence is not None:
            metadata["license"] = self.licence
        if self.classes is not None:
            metadata["classes"] = json.dumps(self.classes, ensure_ascii=False)
        return metadata

    def load_model(self, level: Level | None = None, *, measured: bool = False) -> LoadedModel:
        """Build the model again and load its weights; one that methods act on comes as a plain network of this level.

        level: of an elastic model, by default its first; several points of a subspace give their mean logits.
        measured: also tell what its weights take when they are packed (`stored_bytes`), which takes a while.

        Raises:
            ModelError: the run has no weights yet, they do not fit, or it has no such levels.
            SettingsError: the level is outside what the model was trained for.
        """
        from buttress.weights.levels import of_level

        points = (None,) if level is None else level.points
        prepared = [self.load_prepared() for _ in points]
        loaded = prepared[0][0]
        module, size = of_level([(each.module, methods) for each, methods in prepared], level, measured=measured)
        return replace(loaded, module=module, stored_bytes=size, uri=f"{loaded.uri}@{level}" if level else loaded.uri)

    def load_prepared(self) -> tuple[LoadedModel, tuple[CompressionMethod, ...]]:
        """Build the model again as it was trained, and the methods that act on it.

        Of an elastic model this is the one that `buttress.weights.levels.set_level` moves; without methods a plain one.

        Raises: ModelError, where the run has no weights yet or they do not fit.
        """
        if not self.finished:
            raise _unfinished(self.path)
        from buttress.models.load import LoadedModel, build, load_weights
        from buttress.models.weights_file import read_weights

        weights = read_weights(self.path / WEIGHTS)
        module = build(self.model_name, self.model_kwargs)
        methods = self.methods_in_hand()
        for method in methods:
            method.attach(module)
        load_weights(module, weights)
        loaded = LoadedModel(
            module=module,
            preprocessing=self.preprocessing,
            classes=self.classes,
            uri=f"run:{self.path}",
            weights_sha256=weights.sha256,
            licence=self.licence,
            pretrained=True,
            name=self.model_name,
            kwargs=dict(self.model_kwargs),
        )
        return loaded, methods

    def methods_in_hand(self) -> tuple[CompressionMethod, ...]:
        """The methods that the card tells of.

        Raises: ModelError, where one is not known here.
        """
        if not self.methods:
            return ()
        from buttress.weights.build import from_card

        return tuple(from_card(told, str(self.path / CARD), self.preprocessing.size) for told in self.methods)

    def levels(self) -> tuple[Level, ...]:
        """Those that the model may be loaded at and is scored at, the default first; none of a model of one form."""
        return tuple(level for method in self.methods_in_hand() for level in method.levels())

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add the figures of one epoch (`line["epoch"]`, an int) to metrics.jsonl, and see it reach the disk.

        Raises: TrainingError, where a figure is NaN or infinite.
        """
        assert isinstance(line["epoch"], int)
        try:
            text = json.dumps(line, sort_keys=True, allow_nan=False) + "\n"
        except ValueError as failure:
            why = f"{self.path}: epoch {line['epoch']}: a figure is NaN or infinite, the training diverged"
            raise TrainingError(f"{why}; try a lower --lr") from failure
        with (self.path / METRICS).open("a+b") as file:
            _drop_torn_line(file)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The figures of every epoch, in order; of an epoch that was run again after a resume, the last ones."""
        file = self.path / METRICS
        if not file.exists():
            return []
        by_epoch: dict[int, dict[str, Any]] = {}
        *lines, _torn = file.read_bytes().split(b"\n")
        for number, text in enumerate(lines, start=1):
            try:
                line = json.loads(text)
                by_epoch[line["epoch"]] = line
            except (ValueError, TypeError, KeyError) as failure:
                raise ModelError(f"{file}: line {number} is not the figures of an epoch; delete it") from failure
        return [by_epoch[epoch] for epoch in sorted(by_epoch)]

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": {"name": self.model_name, "kwargs": self.model_kwargs},
            "classes": None if self.classes is None else list(self.classes),
            "preprocessing": self.preprocessing.to_json(),
            "settings": self.settings,
            "versions": self.versions,
            "data": self.data,
            "reinforcement": self.reinforcement,
            "methods": list(self.methods),
            "licence": self.licence,
        }


def open_run(path: Path | str, *, finished: bool = True) -> Run:
    """Open a run folder.

    finished: refuse a run that has no weights yet (False, to resume it).

    Raises: ModelError, where `path` is no run folder, is unfinished, or was written by a newer version.
    """
    folder = Path(path)
    card = folder / CARD
    if not card.is_file():
        what = "no run.json in it" if folder.is_dir() else "no such folder"
        raise ModelError(f"{folder}: not a run folder ({what}); give the --out of a `buttress train`")
    value = read_json(card, ModelError)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ModelError(f"{card}: not the run.json of a Buttress run")
    if value.get("version") != VERSION:
        raise ModelError(f"{card}: run format {value.get('version')}, this Buttress reads {VERSION}; update Buttress")
    run = _from_json(folder, value)
    if finished and not run.finished:
        raise _unfinished(folder)
    return run


_KINDS: dict[str, type | tuple[type, ...]] = {
    "model": dict,
    "classes": (list, type(None)),
    "preprocessing": dict,
    "settings": dict,
    "versions": dict,
    "data": dict,
    "reinforcement": (str, type(None)),
    "methods": list,
    "licence": (str, type(None)),
}


def _from_json(folder: Path, value: dict[str, Any]) -> Run:
    card = folder / CARD
    value.setdefault("licence", None)  # the first runs do not say it
    if unknown := sorted(set(value) - set(_KINDS) - {"format", "version"}):
        raise ModelError(f"{card}: unknown key {unknown[0]!r}")
    for key, kind in _KINDS.items():
        if key not in value or not isinstance(value[key], kind):
            raise ModelError(f"{card}: {key!r} is missing or of another kind; the file was changed by hand")
    model, classes = value["model"], value["classes"]
    if not all(isinstance(told, dict) for told in value["methods"]):
        raise ModelError(f"{card}: 'methods' is not a list of methods; the file was changed by hand")
    if set(model) != {"name", "kwargs"} or not isinstance(model["kwargs"], dict):
        raise ModelError(f"{card}: 'model' must have a name and kwargs")
    return Run(
        path=folder,
        model_name=str(model["name"]),
        model_kwargs=model["kwargs"],
        classes=None if classes is None else tuple(map(str, classes)),
        preprocessing=Preprocessing.from_json(value["preprocessing"], str(card)),
        settings=value["settings"],
        versions=value["versions"],
        data=value["data"],
        reinforcement=value["reinforcement"],
        methods=tuple(value["methods"]),
        licence=value["licence"],
    )


def _unfinished(folder: Path) -> ModelError:
    return ModelError(f"{folder}: an unfinished run, no {WEIGHTS} yet; go on with it by its own command and --resume")


def _drop_torn_line(file: Any) -> None:
    """Cut what stands after the last newline: a line that a crash left half-written."""
    file.seek(0)
    data = file.read()
    file.truncate(data.rfind(b"\n") + 1)

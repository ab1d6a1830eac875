"""A model, a source, perhaps a reinforcement, and a method -> a run folder, and what the compression took and gave.

compression.json beside the run's other files: `rows`, the plain model, where it applies the baseline without training,
and the result, each with its size and figures; `sizes`, what the packed weights take; `gap`, of palettes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from buttress.errors import ModelError
from buttress.files import read_json, write_json
from buttress.loading.loader import BatchLoader
from buttress.loading.schedule import Share
from buttress.metrics.cost.counts import state_bytes
from buttress.metrics.score import Scoring, evaluation_device, score
from buttress.models.load import LoadedModel, at_size
from buttress.models.normalise import normalise
from buttress.models.packed import sizes
from buttress.models.uri import parse_model_uri
from buttress.runs.resolve import resolve_model
from buttress.runs.run import COMPRESSION, Run
from buttress.terminal import first_process, note
from buttress.training.data import TrainingData
from buttress.training.settings import TrainingSettings
from buttress.training.train import train_on_source, training_loader
from buttress.weights.build import create_method
from buttress.weights.dkm import gap
from buttress.weights.settings import DkmSettings, MethodSettings


def compress_on_source(
    data: TrainingData,
    *,
    model: str,
    method: MethodSettings,
    out: Path,
    settings: TrainingSettings,
    size: int | None = None,
    resume: bool = False,
    other_settings: bool = False,
    recipe: Mapping[str, Any] | None = None,
) -> Run:
    """Train a model on under a method, and write down what came of it.

    Args:
        data: what to learn from; with `val` the plain model, k-means without training and the result are scored on it.
        model: URI of the model to begin with.
        method: what to make of it.
        out: the run folder.
        settings: of the training.
        size: side of the views, pixels; none = the model's own.
        resume: go on with the run in `out`.
        other_settings: go on also with other settings than the run was started with.
        recipe: flags that make this run again.

    Raises:
        ButtressError: they do not fit together.
    """
    run = train_on_source(
        data,
        model=model,
        out=out,
        settings=settings,
        size=size,
        resume=resume,
        other_settings=other_settings,
        recipe=recipe,
        methods=(method,),
    )
    if first_process() and not _told_already(out / COMPRESSION, data):
        write_json(out / COMPRESSION, _account(run, data, model, method, settings))
    return run


def _told_already(path: Path, data: TrainingData) -> bool:
    """Whether the account is there, with figures if there is something to score on."""
    if not path.is_file():
        return False
    return data.val is None or all(row["figures"] for row in read_json(path, ModelError)["rows"])


def _account(
    run: Run, data: TrainingData, model: str, method: MethodSettings, settings: TrainingSettings
) -> dict[str, Any]:
    """What compression.json says."""
    loaded, plain = run.load_model(measured=True), resolve_model(model)
    same = plain.num_classes == loaded.num_classes  # else its head is a new one
    if same and parse_model_uri(model).scheme == "run" and plain.classes != data.classes:
        note(f"{model}: learnt other classes, or in another order; its own figures would say nothing and are left out")
        same = False
    trained_before = plain.pretrained and same
    rows: list[dict[str, Any]] = []
    told: dict[str, Any] = {"rows": rows}
    if trained_before:
        plain = at_size(plain, loaded.preprocessing.size)
        what = "the model it began with"
        rows.append({"what": what, "bytes": state_bytes(plain.module), "figures": _scored(plain, data)})
    if isinstance(method, DkmSettings):
        trained, (dkm,) = run.load_prepared()
        told |= {"sizes": asdict(sizes(dkm.packed(trained.module))), "gap": gap(trained.module)}
        if trained_before and data.val is not None:
            note("scoring k-means without training, for comparison")
            figures = _scored(kmeans_alone(plain, method, data, settings), data)
            what = "k-means, batch statistics re-estimated"
            rows.append({"what": what, "bytes": loaded.stored_bytes, "figures": figures})
    for level in run.levels() or (None,):
        each = loaded if level is None else run.load_model(level, measured=True)
        what = f"{method_title(method)}{'' if level is None else f', {level}'}"
        rows.append({"what": what, "bytes": each.stored_bytes, "figures": _scored(each, data)})
    return told


def method_title(method: MethodSettings) -> str:
    """A method as a table names it."""
    if isinstance(method, DkmSettings):
        per = "" if method.cluster_dim == 1 else f"/{method.cluster_dim}"
        return f"dkm, {method.bits}{per} bit"
    return type(method).__name__.removesuffix("Settings").lower()


def kmeans_alone(
    plain: LoadedModel, method: DkmSettings, data: TrainingData, settings: TrainingSettings
) -> LoadedModel:
    """Post-training palettes: k-means of the weights and batch statistics anew, no step of training."""
    by, module = create_method(method), plain.module.to(evaluation_device())
    by.prepare(module)
    by.before_evaluation(module, TrainingImages(data, plain, settings), last=True)
    by.materialise(module.cpu())
    return replace(plain, module=module)


class TrainingImages:
    """The views of the first epoch as a model takes them, float32 [B, 3, H, W]; every iteration begins anew."""

    def __init__(self, data: TrainingData, loaded: LoadedModel, settings: TrainingSettings) -> None:
        self.loader: BatchLoader = training_loader(data, loaded, settings, Share())
        self.preprocessing, self.module = loaded.preprocessing, loaded.module

    def __iter__(self) -> Iterator[Tensor]:
        device = next(self.module.parameters()).device
        for batch in self.loader.pass_over(0):
            if batch.ids:
                yield normalise(batch.to(device).images, self.preprocessing)


def _scored(loaded: LoadedModel, data: TrainingData) -> dict[str, Any] | None:
    """Figures on the val data; none where there is none."""
    if data.val is None:
        return None
    loaded = replace(loaded, classes=data.classes)
    figures = score(loaded, data.val, Scoring(class_map=data.val_map, max_bad=data.max_bad)).figures
    return {name: figures[name] for name in ("top1", "nll", "ece")}

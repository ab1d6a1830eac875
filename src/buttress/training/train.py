"""A model, a source and perhaps a reinforcement -> a run folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from buttress.errors import ButtressError, SettingsError, TrainingError
from buttress.files import require_own_folder, write_atomic
from buttress.loading.loader import BatchLoader
from buttress.loading.schedule import Share
from buttress.metrics.score import RelabelledBatches
from buttress.models.load import LoadedModel, at_size
from buttress.runs.resolve import resolve_model
from buttress.runs.run import CARD, METRICS, RECIPE, Run, open_run
from buttress.terminal import first_process, note
from buttress.training.checkpoints import require_same_settings, require_storable
from buttress.training.compute import fastest_step, resolve_precision
from buttress.training.data import TrainingData
from buttress.training.engine import fit, require_batches, share
from buttress.training.optim import create_optimizer, plain_groups
from buttress.training.rng import seed_everything
from buttress.training.scoring import scored_batches
from buttress.training.settings import TrainingSettings
from buttress.training.trackers import PROJECT, require_trackers
from buttress.versions import library_versions
from buttress.weights.build import create_method, to_card
from buttress.weights.method import CompressionMethod
from buttress.weights.settings import MethodSettings


def train_on_source(
    data: TrainingData,
    *,
    model: str,
    out: Path,
    settings: TrainingSettings,
    size: int | None = None,
    resume: bool = False,
    other_settings: bool = False,
    recipe: Mapping[str, Any] | None = None,
    methods: Sequence[MethodSettings] = (),
) -> Run:
    """Train `model` on what the data has: hard labels, a reinforcement, or a live teacher.

    Args:
        data: what to learn from.
        model: `timm:` or `run:` URI; one with weights and another number of classes gets a new head.
        out: the run folder.
        settings: of the training.
        size: side of the views, pixels; none = the model's own.
        resume: go on with the run in `out`.
        other_settings: go on also with other settings than the run was started with; these count from there on.
        recipe: flags that train this run again; written to its recipe.yaml.
        methods: what makes the model smaller or elastic while it trains; they act in this order.

    Raises:
        ButtressError: data, model and settings do not fit together.
    """
    if size is not None and size < 1:
        raise SettingsError(f"--size {size}: the views need at least 1 pixel a side")
    begun, made_folder = (out / CARD).exists(), not out.exists()
    if begun and not resume:
        raise TrainingError(f"{out}: holds a run already; name another --out, or go on with it by --resume")
    if not begun and first_process():
        require_own_folder(out, lambda name: name == PROJECT or (resume and name == "checkpoints"), "a run's")
    objective = data.objective(settings)
    seed_everything(settings.seed)
    loaded = resolve_model(model, num_classes=len(data.classes))
    loaded = loaded if size is None else at_size(loaded, size)
    settings = settings.resolved(pretrained=loaded.pretrained)
    # All that can be refused is refused before anything is written, so that the corrected command finds all as it was.
    require_trackers(settings)
    loader, val_loader = _loaders(data, loaded, settings)
    require_batches(loader, settings)
    _try_optimizer(settings)
    if settings.precision == "fastest":
        settings = _as_begun(settings, open_run(out, finished=False)) if begun else fastest_step(loaded, settings)
    settings = replace(settings, precision=resolve_precision(settings.precision))
    run = Run.of(
        out,
        model=loaded,
        classes=data.classes,
        settings={"model": model, **asdict(settings)},
        versions=library_versions(),
        data=data.identity(),
        reinforcement=None if data.reinforcement is None else data.reinforcement.card.to_json()["digest"],
        methods=[to_card(method) for method in methods],
    )
    if begun:
        there = open_run(out, finished=False)
        if not other_settings:
            require_same_settings(out, _compared(there), _compared(run))
            run = there
        if there.finished:
            note(f"{out}: this run is finished already")
            return there

    def begin() -> None:
        if first_process():
            if not begun or other_settings:
                run.write_card()
            if recipe is not None:
                write_atomic(out / RECIPE, yaml.safe_dump(dict(recipe), sort_keys=False).encode())

    try:
        fit(
            loaded.module,
            loader,
            settings,
            run=run,
            methods=_in_hand(methods, loaded),
            objective=objective,
            val_loader=val_loader,
            resume=resume,
            other_settings=other_settings,
            begin=begin,
        )
    except ButtressError:
        _forget_unstarted(run, made_folder=made_folder)
        raise
    return run


def _as_begun(settings: TrainingSettings, there: Run) -> TrainingSettings:
    """A resumed run stays with what was measured when it began."""
    engine = replace(settings.engine, channels_last=there.settings["engine"]["channels_last"])
    return replace(settings, precision=there.settings["precision"], engine=engine)


def _in_hand(methods: Sequence[MethodSettings], loaded: LoadedModel) -> tuple[CompressionMethod, ...]:
    size = loaded.preprocessing.size
    return tuple(create_method(method, pretrained=loaded.pretrained, size=size) for method in methods)


def _compared(run: Run) -> dict[str, Any]:
    """What must be the same for a resume."""
    return {
        **run.settings,
        "size": run.preprocessing.size,
        "reinforcement": run.reinforcement,
        "data": {key: value for key, value in run.data.items() if key != "teachers" or run.reinforcement is None},
        "method": ", ".join(str(told["name"]) for told in run.methods) or None,
        **{str(told["name"]): told["settings"] for told in run.methods},
    }


def _forget_unstarted(run: Run, *, made_folder: bool) -> None:
    """Free the folder for the corrected command, where nothing is in it that took work."""
    if first_process() and not any((run.path / name).exists() for name in ("checkpoints", METRICS)):
        for name in (CARD, RECIPE):
            (run.path / name).unlink(missing_ok=True)
        if made_folder:
            with suppress(OSError):  # somebody's own files are in it
                run.path.rmdir()


def _loaders(
    data: TrainingData, loaded: LoadedModel, settings: TrainingSettings
) -> tuple[BatchLoader, RelabelledBatches | None]:
    """Training batches, and those to score on where there is val data. No process is started yet."""
    loader = training_loader(data, loaded, settings, share())
    if (told := loader.line()) is not None:
        note(told)
    if data.val is None:
        return loader, None
    student = replace(loaded, classes=data.classes)
    return loader, scored_batches(
        student, data.val, class_map=data.val_map, workers=settings.workers, max_bad=data.max_bad, share=share()
    )


def training_loader(data: TrainingData, loaded: LoadedModel, settings: TrainingSettings, share: Share) -> BatchLoader:
    """The batches that a model is trained on, or one process's slices of them."""
    return BatchLoader(
        data.batches(loaded.preprocessing.size, settings),
        batch=settings.batch,
        seed=settings.seed,
        shuffle=True,
        workers=settings.workers,
        share=share,
        max_bad=data.max_bad,
        views_per_decode=settings.engine.views_per_decode,
    )


def _try_optimizer(settings: TrainingSettings) -> None:
    """One step on parameters of every kind.

    Raises: SettingsError, where timm does not make this optimizer with these settings; TrainingError, where its state
    cannot be saved.
    """
    assert settings.lr is not None
    tried = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 2))
    groups = plain_groups(tried, settings.optimizer.weight_decay)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training's own optimizer says them again
        optimizer = create_optimizer(groups, settings.optimizer, settings.lr)
    for parameter in tried.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    require_storable(optimizer)

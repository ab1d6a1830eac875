"""A model, a source and perhaps a reinforcement -> a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from buttress.errors import ButtressError, SettingsError, TrainingError
from buttress.files import require_own_folder, write_atomic
from buttress.loading.loader import BatchLoader
from buttress.metrics.score import RelabelledBatches
from buttress.models.load import LoadedModel, at_size
from buttress.runs.resolve import resolve_model
from buttress.runs.run import CARD, RECIPE, Run, open_run
from buttress.terminal import first_process, note
from buttress.training.chance import seed_everything
from buttress.training.checkpoints import require_same_settings
from buttress.training.compute import resolve_precision
from buttress.training.data import TrainingData
from buttress.training.engine import fit, require_batches, require_trackers, share, wait_for_all
from buttress.training.optim import create_optimizer, plain_groups
from buttress.training.scoring import scored_batches
from buttress.training.settings import TrainingSettings
from buttress.versions import library_versions


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

    Raises:
        ButtressError: data, model and settings do not fit together.
    """
    if size is not None and size < 1:
        raise SettingsError(f"--size {size}: the views need at least 1 pixel a side")
    if not (out / CARD).exists():  # a run is gone on with, or refused below
        require_own_folder(out, lambda name: resume and name == "checkpoints", "a run's")
    objective = data.objective(settings)
    seed_everything(settings.seed)
    loaded = resolve_model(model, num_classes=len(data.classes))
    loaded = loaded if size is None else at_size(loaded, size)
    settings = replace(settings.resolved(pretrained=loaded.pretrained), precision=resolve_precision(settings.precision))
    # All that can be refused is refused before the folder is made, so that the corrected command finds it free.
    require_trackers(settings)
    loader, val_loader = _loaders(data, loaded, settings)
    require_batches(loader, settings)
    _try_optimizer(loaded, settings)
    run = _open(out, resume, other_settings, loaded, data, {"model": model, **asdict(settings)})
    if recipe is not None and first_process():
        write_atomic(out / RECIPE, yaml.safe_dump(dict(recipe), sort_keys=False).encode())
    if resume and run.finished:
        note(f"{out}: this run is finished already")
        return run
    try:
        fit(
            loaded.module,
            loader,
            settings,
            run=run,
            objective=objective,
            val_loader=val_loader,
            resume=resume,
            other_settings=other_settings,
        )
    except ButtressError:
        _forget_unstarted(run)
        raise
    return run


def _forget_unstarted(run: Run) -> None:
    """Free the folder for the corrected command, where there is no checkpoint that a resume could go on from."""
    if first_process() and not (run.path / "checkpoints").exists():
        for name in (CARD, RECIPE, "metrics.jsonl"):
            (run.path / name).unlink(missing_ok=True)


def _loaders(
    data: TrainingData, loaded: LoadedModel, settings: TrainingSettings
) -> tuple[BatchLoader, RelabelledBatches | None]:
    """Training batches, and those to score on where there is val data. No process is started yet."""
    loader = BatchLoader(
        data.batches(loaded.preprocessing.size, settings),
        batch=settings.batch,
        seed=settings.seed,
        shuffle=True,
        workers=settings.workers,
        share=share(),
        max_bad=data.max_bad,
    )
    if data.val is None:
        return loader, None
    student = replace(loaded, classes=data.classes)
    return loader, scored_batches(
        student, data.val, class_map=data.val_map, workers=settings.workers, max_bad=data.max_bad, share=share()
    )


def _try_optimizer(loaded: LoadedModel, settings: TrainingSettings) -> None:
    """Raises: SettingsError, where timm does not make this optimizer with these settings."""
    assert settings.lr is not None
    groups = plain_groups(loaded.module, settings.optimizer.weight_decay)
    create_optimizer(groups, settings.optimizer, settings.lr)


def _open(
    out: Path, resume: bool, other_settings: bool, loaded: LoadedModel, data: TrainingData, settings: dict[str, Any]
) -> Run:
    """The run folder; of several processes the first makes it, and the others wait for it."""
    if first_process():
        run = _made(out, resume, other_settings, loaded, data, settings)
    wait_for_all()
    return run if first_process() else open_run(out, finished=False)


def _made(
    out: Path, resume: bool, other_settings: bool, loaded: LoadedModel, data: TrainingData, settings: dict[str, Any]
) -> Run:
    digest = None if data.reinforcement is None else data.reinforcement.card.to_json()["digest"]
    begun = (out / CARD).exists()
    if begun and not resume:
        raise TrainingError(f"{out}: holds a run already; name another --out, or go on with it by --resume")
    if begun and not other_settings:
        run = open_run(out, finished=False)
        asked = {**settings, "size": loaded.preprocessing.size, "reinforcement": digest, "data": data.identity()}
        there = {**run.settings, "size": run.preprocessing.size, "reinforcement": run.reinforcement, "data": run.data}
        require_same_settings(out, there, asked)
        return run
    return Run.create(
        out,
        model=loaded,
        classes=data.classes,
        settings=settings,
        versions=library_versions(),
        data=data.identity(),
        reinforcement=digest,
        again=begun,
    )

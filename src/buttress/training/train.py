"""A model, a source and perhaps a reinforcement -> a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from buttress.errors import ButtressError
from buttress.files import write_atomic
from buttress.loading.loader import BatchLoader
from buttress.metrics.score import evaluation_loader
from buttress.models.load import LoadedModel, at_size
from buttress.runs.resolve import resolve_model
from buttress.runs.run import Run, open_run
from buttress.terminal import first_process, note
from buttress.training.chance import seed_everything
from buttress.training.checkpoints import require_same_settings
from buttress.training.data import TrainingData
from buttress.training.engine import fit, require_batches, require_trackers, resolve_precision, share, wait_for_all
from buttress.training.optim import create_optimizer, plain_groups
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
        write_atomic(out / "recipe.yaml", yaml.safe_dump(dict(recipe), sort_keys=False).encode())
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
        for name in ("run.json", "recipe.yaml", "metrics.jsonl"):
            (run.path / name).unlink(missing_ok=True)


def _loaders(
    data: TrainingData, loaded: LoadedModel, settings: TrainingSettings
) -> tuple[BatchLoader, BatchLoader | None]:
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
    return loader, evaluation_loader(
        loaded.preprocessing, data.val, data.classes, settings.workers, max_bad=data.max_bad, share=share()
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
    there = open_run(out, finished=False) if resume and (out / "run.json").exists() else None
    if there is not None and not other_settings:
        asked = {**settings, "size": loaded.preprocessing.size, "reinforcement": digest, "data": data.identity()}
        run = {"size": there.preprocessing.size, "reinforcement": there.reinforcement, "data": there.data}
        require_same_settings(out, {**there.settings, **run}, asked)
        return there
    return Run.create(
        out,
        model=loaded,
        classes=data.classes,
        settings=settings,
        versions=library_versions(),
        data=data.identity(),
        reinforcement=digest,
        again=there is not None,
    )

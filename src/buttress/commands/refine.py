"""`buttress refine`: a model labels its own training views, and the next one learns from that; without any teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from buttress.training.replay import as_recipe
from buttress.training.settings import (
    EngineSettings,
    LossSettings,
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)


def refine(
    *,
    model: str,
    data: str,
    out: Path,
    rounds: int = 3,
    val: str | None = None,
    views: int = 16,
    k: int = 10,
    policy: str = "randaug",
    size: int | None = None,
    epochs: int = 50,
    batch: int = 64,
    lr: float | None = None,
    seed: int = 0,
    label_smoothing: float = 0.0,
    workers: int = 2,
    max_bad: float = 0.001,
    loss: LossSettings = LossSettings(),  # noqa: B008  (frozen)
    optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008
    schedule: ScheduleSettings = ScheduleSettings(),  # noqa: B008
    engine: EngineSettings = EngineSettings(),  # noqa: B008
) -> None:
    """Train, let the model label its training images, train anew on that, and so on (label refinery).

    Run again, it does only what is missing.

    Args:
        model: the student, e.g. timm:mobilenetv3_small_050; every round starts from it anew.
        data: labelled training images, e.g. folder:photos/train.
        out: the folder of the rounds: run folders round-1, round-2, ... and what their models say, round-1+, ...
        rounds: trainings in all; the first is on hard labels.
        val: labelled images to score on after each epoch.
        views: views labelled per image in every round.
        k: classes stored per view.
        policy: augmentation: crop, randaug, mix, mix+randaug, small, small-crop, small-mix,
            small-mix+randaug, or a JSON file.
        size: side of the views in pixels; the default is the model's own.
        epochs: passes over the data in every round.
        batch: images per update.
        lr: peak learning rate; the default is 1e-3 from scratch and 1e-4 from trained weights.
        seed: of the weights, the order and the views.
        label_smoothing: 0..1, for the hard labels of the first round.
        workers: processes that prepare batches; 0 = none, also for labelling.
        max_bad: largest share, 0..1, of images that may fail to decode.
        loss: what a step minimises.
        optimizer: how gradients become steps.
        schedule: how the learning rate changes.
        engine: how a step is computed, and what is kept on the way.
    """
    recipe = as_recipe(locals())
    from buttress.labelling.settings import LabelSettings
    from buttress.sources import open_source
    from buttress.terminal import note
    from buttress.training.refinery import Refinery
    from buttress.views.presets import read_policy

    refinery = Refinery(
        source=open_source(data),
        policy=read_policy(policy),
        model=model,
        out=out,
        rounds=rounds,
        training=TrainingSettings(
            epochs=epochs,
            batch=batch,
            lr=lr,
            seed=seed,
            label_smoothing=label_smoothing,
            loss=loss,
            optimizer=optimizer,
            schedule=schedule,
            engine=engine,
            workers=workers,
        ),
        # How many processes label best is not how many prepare batches; none at all is none of either.
        labelling=LabelSettings(views=views, k=k, seed=seed, workers=None if workers else 0, max_bad=max_bad),
        size=size,
        val=None if val is None else open_source(val),
        max_bad=max_bad,
        recipe=recipe,
    )
    for number, run in enumerate(refinery.run(), 1):
        note(f"round {number} of {rounds}: {run.path}{_figures(run.read_metrics())}")


def _figures(lines: Sequence[dict[str, Any]]) -> str:
    """What the last epoch scored, where there were images to score on."""
    figures = lines[-1]["val"] if lines else None
    if not figures:
        return ""
    return (
        f"  top-1 {figures['top1']['value']:.4f}  nll {figures['nll']['value']:.4f}  ece {figures['ece']['value']:.4f}"
    )

"""`buttress train`: fit a model to a source, with hard labels or with what a teacher said."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal

from buttress.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings


def train(
    *,
    model: str,
    data: str,
    out: Path,
    reinforcement: Path | None = None,
    val: str | None = None,
    targets: Literal["hard", "reinforced"] | None = None,
    policy: str | None = None,
    missing: Literal["error", "hard"] = "error",
    size: int | None = None,
    epochs: int = 50,
    batch: int = 64,
    lr: float | None = None,
    seed: int = 0,
    label_smoothing: float = 0.0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    workers: int = 2,
    evaluate_every: int = 1,
    max_bad: float = 0.001,
    optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008  (frozen)
    schedule: ScheduleSettings = ScheduleSettings(),  # noqa: B008
    resume: bool = False,
) -> None:
    """Train a model on a folder of images, alone or reinforced.

    Args:
        model: timm:NAME (from scratch), timm:NAME.TAG (hub weights), timm:NAME@FILE.safetensors or run:DIR.
        data: the training images, e.g. folder:photos/train.
        out: the run folder to make.
        reinforcement: what a teacher said about these images (buttress reinforce).
        val: labelled images to score on after each epoch.
        targets: hard or reinforced; the default is reinforced where there is a reinforcement.
        policy: augmentation for hard labels: crop, randaug (the default), mix, mix+randaug, small, small-mix,
            small-mix+randaug, or a JSON file.
        missing: what to do with images that the reinforcement does not know: stop, or train them on their hard label.
        size: side of the training views in pixels; the default is the model's own.
        epochs: passes over the data.
        batch: images per update.
        lr: peak learning rate; the default is 1e-3 from scratch and 1e-4 from trained weights.
        seed: of the weights, the order and the views.
        label_smoothing: 0..1, for hard labels only.
        precision: auto is bf16 on a GPU that has it, else fp32.
        workers: processes that prepare batches; 0 = none.
        evaluate_every: epochs between scorings on --val.
        max_bad: largest share, 0..1, of images that may fail to decode.
        optimizer: how gradients become steps.
        schedule: how the learning rate changes.
        resume: go on with the run in --out from its last whole checkpoint.
    """
    recipe = _as_recipe(locals())
    settings = TrainingSettings(
        epochs=epochs,
        batch=batch,
        lr=lr,
        seed=seed,
        label_smoothing=label_smoothing,
        precision=precision,
        workers=workers,
        evaluate_every=evaluate_every,
        optimizer=optimizer,
        schedule=schedule,
    )
    reinforced = _reinforced(targets, reinforcement, missing)
    from buttress.sources import open_source
    from buttress.terminal import note
    from buttress.training.train import TrainingData, train_on_source
    from buttress.views.presets import read_policy

    store = None
    if reinforced:
        from buttress.store.reader import open_reinforcement

        assert reinforcement is not None
        store = open_reinforcement(reinforcement)
    policy = policy or (None if reinforced else "randaug")
    run = train_on_source(
        TrainingData(
            source=open_source(data),
            policy=None if policy is None else read_policy(policy),
            reinforcement=store,
            missing=missing,
            val=None if val is None else open_source(val),
            max_bad=max_bad,
        ),
        model=model,
        out=out,
        settings=settings,
        size=size,
        resume=resume,
        recipe=recipe,
    )
    note(f"{run.path}: done; score it by buttress evaluate {run.path} --data ...")


def _as_recipe(given: dict[str, Any]) -> dict[str, Any]:
    """The flags of this call as a recipe: all but where it goes, and what was left to the default of none."""
    values = {
        key: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for key, value in given.items()
    }
    return {
        key.replace("_", "-"): str(value) if isinstance(value, Path) else value
        for key, value in values.items()
        if value is not None and key not in ("out", "resume")
    }


def _reinforced(targets: str | None, reinforcement: Path | None, missing: str) -> bool:
    from buttress.errors import SettingsError
    from buttress.terminal import note

    if targets == "reinforced" and reinforcement is None:
        raise SettingsError("--targets reinforced needs --reinforcement DIR (made by buttress reinforce)")
    if targets == "hard" and reinforcement is not None:
        note(f"--targets hard: {reinforcement} is not used")
    if missing == "hard" and reinforcement is None:
        raise SettingsError("--missing hard: says what to do without stored labels, so it needs --reinforcement DIR")
    return reinforcement is not None and targets != "hard"

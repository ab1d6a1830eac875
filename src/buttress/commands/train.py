"""`buttress train`: fit a model to a source, with hard labels or with what a teacher said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from buttress.errors import SettingsError
from buttress.training.replay import as_recipe
from buttress.training.settings import (
    EngineSettings,
    LossSettings,
    OptimizerSettings,
    Precision,
    ScheduleSettings,
    TrainingSettings,
)

if TYPE_CHECKING:
    from buttress.teachers import EnsembleSpec


def train(
    *,
    model: str,
    data: str,
    out: Path,
    reinforcement: Path | None = None,
    val: str | None = None,
    targets: Literal["hard", "online", "reinforced"] | None = None,
    head: Literal["own", "auxiliary"] = "own",
    teacher: str | list[str] | None = None,
    teacher_size: int | None = None,
    class_map: Path | None = None,
    policy: str | None = None,
    missing: Literal["error", "hard"] = "error",
    size: int | None = None,
    epochs: int = 50,
    batch: int = 64,
    lr: float | None = None,
    seed: int = 0,
    label_smoothing: float = 0.0,
    precision: Precision = "auto",
    workers: int = 2,
    evaluate_every: int = 1,
    max_bad: float = 0.001,
    loss: LossSettings = LossSettings(),  # noqa: B008  (frozen)
    optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008
    schedule: ScheduleSettings = ScheduleSettings(),  # noqa: B008
    engine: EngineSettings = EngineSettings(),  # noqa: B008
    resume: bool = False,
    other_settings: bool = False,
) -> None:
    """Train a model on a folder of images, alone or reinforced.

    Args:
        model: timm:NAME (from scratch), timm:NAME.TAG (hub weights), timm:NAME@FILE.safetensors or run:DIR.
        data: the training images, e.g. folder:photos/train.
        out: the run folder to make.
        reinforcement: what a teacher said about these images (buttress reinforce).
        val: labelled images to score on after each epoch.
        targets: hard, reinforced, or online (a live teacher looks at every view); the default is reinforced where there
            is a reinforcement, online where there is a teacher, else hard.
        head: own learns the classes of the targets; auxiliary learns the images' own classes from their labels, and the
            teacher's (buttress reinforce --classes teacher) by a second head that is dropped at the end.
        teacher: the live teacher, as for buttress reinforce; given several times, their mean.
        teacher_size: side of the live teachers' views in pixels; the default is each teacher's own.
        class_map: YAML file, class of the images -> class of the live teacher, where names do not say it; without a
            live teacher, class of --val -> class that the model learns, as for buttress evaluate.
        policy: augmentation where no reinforcement brings its own: crop, randaug (the default), mix, mix+randaug,
            small, small-crop, small-mix, small-mix+randaug, or a JSON file.
        missing: what to do with images that the reinforcement does not know: stop, or train them on their hard label.
        size: side of the training views in pixels; the default is the model's own.
        epochs: passes over the data.
        batch: images per update, over all processes.
        lr: peak learning rate; the default is 1e-3 from scratch and 1e-4 from trained weights.
        seed: of the weights, the order and the views.
        label_smoothing: 0..1, for hard labels only.
        precision: auto is bf16 on a GPU that has it, else fp32; fp16 needs a GPU; fastest measures it on a CPU.
        workers: processes that prepare batches; 0 = none.
        evaluate_every: epochs between scorings on --val.
        max_bad: largest share, 0..1, of images that may fail to decode.
        loss: what a step minimises.
        optimizer: how gradients become steps.
        schedule: how the learning rate changes.
        engine: how a step is computed, and what is kept on the way.
        resume: go on with the run in --out from its last whole checkpoint.
        other_settings: with --resume, go on also with other settings than the run was started with.
    """
    recipe = as_recipe(locals())
    settings = TrainingSettings(
        epochs=epochs,
        batch=batch,
        lr=lr,
        seed=seed,
        label_smoothing=label_smoothing,
        loss=loss,
        precision=precision,
        workers=workers,
        evaluate_every=evaluate_every,
        optimizer=optimizer,
        schedule=schedule,
        engine=engine,
    )
    if other_settings and not resume:
        raise SettingsError("--other-settings: says how to go on, so it needs --resume")
    teachers = [teacher] if isinstance(teacher, str) else teacher or []
    live = {"--teacher-size": teacher_size, "--class-map": None if val is not None else class_map}
    targets = _targets(targets, reinforcement, teachers, missing, live)
    from buttress.sources import open_source
    from buttress.store.reader import open_reinforcement
    from buttress.terminal import note
    from buttress.training.data import TrainingData
    from buttress.training.train import train_on_source
    from buttress.views.presets import read_policy

    source = open_source(data)
    reinforced = targets == "reinforced"
    policy = policy or (None if reinforced else "randaug")
    run = train_on_source(
        TrainingData(
            source=source,
            policy=None if policy is None else read_policy(policy),
            reinforcement=open_reinforcement(reinforcement) if reinforced and reinforcement is not None else None,
            teacher=_live(teachers, teacher_size, class_map, source.classes) if targets == "online" else None,
            head=head,
            missing=missing,
            val=None if val is None else open_source(val),
            val_map=None if targets == "online" else class_map,
            max_bad=max_bad,
        ),
        model=model,
        out=out,
        settings=settings,
        size=size,
        resume=resume,
        other_settings=other_settings,
        recipe=recipe,
    )
    note(f"{run.path}: done; score it by buttress evaluate {run.path} --data ...")


def _targets(
    asked: Literal["hard", "online", "reinforced"] | None,
    reinforcement: Path | None,
    teachers: list[str],
    missing: str,
    live: Mapping[str, object],
) -> Literal["hard", "online", "reinforced"]:
    """Where the targets come from."""
    from buttress.terminal import note

    if reinforcement is not None and teachers and asked is None:
        raise SettingsError("--reinforcement and --teacher: say which of the two by --targets reinforced or online")
    if asked == "reinforced" and reinforcement is None:
        raise SettingsError("--targets reinforced needs --reinforcement DIR (made by buttress reinforce)")
    if asked == "online" and not teachers:
        raise SettingsError("--targets online needs --teacher URI, the model to learn from")
    chosen = asked or ("reinforced" if reinforcement is not None else "online" if teachers else "hard")
    if reinforcement is not None and chosen != "reinforced":
        note(f"--targets {chosen}: {reinforcement} is not used")
    if teachers and chosen != "online":
        note(f"--targets {chosen}: {', '.join(teachers)} is not asked")
    if chosen != "online" and (idle := [flag for flag, value in live.items() if value is not None]):
        or_val = " (or of --val)" if idle[0] == "--class-map" else ""
        raise SettingsError(f"{idle[0]}: is of a live teacher{or_val}, and the targets are {chosen}; leave it out")
    if missing == "hard" and chosen != "reinforced":
        raise SettingsError("--missing hard: says what to do without stored labels, so it needs --reinforcement DIR")
    return chosen


def _live(
    teachers: list[str], size: int | None, class_map: Path | None, classes: tuple[str, ...] | None
) -> EnsembleSpec:
    """The live teacher; of a source without classes it keeps its own."""
    from buttress.teachers import EnsembleSpec, TeacherSpec

    source_classes = None if classes is None else tuple(classes)
    members = [TeacherSpec(uri=uri, size=size, source_classes=source_classes, class_map=class_map) for uri in teachers]
    return EnsembleSpec(members=tuple(members))

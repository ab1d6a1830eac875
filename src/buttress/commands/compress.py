"""`buttress compress`: train a model on until it is small or elastic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

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
from buttress.weights.settings import DkmSettings, LcsSettings, MethodSettings, SubspaceSettings


def compress(
    run: str,
    *,
    method: Literal["subspace", "lcs", "dkm"],
    data: str,
    out: Path,
    reinforcement: Path | None = None,
    val: str | None = None,
    class_map: Path | None = None,
    policy: str | None = None,
    missing: Literal["error", "hard"] = "error",
    size: int | None = None,
    epochs: int = 10,
    batch: int = 64,
    lr: float | None = None,
    seed: int = 0,
    label_smoothing: float = 0.0,
    precision: Precision = "auto",
    workers: int = 2,
    evaluate_every: int = 1,
    max_bad: float = 0.001,
    subspace: SubspaceSettings = SubspaceSettings(),  # noqa: B008  (frozen)
    lcs: LcsSettings = LcsSettings(),  # noqa: B008
    dkm: DkmSettings = DkmSettings(),  # noqa: B008
    loss: LossSettings = LossSettings(),  # noqa: B008
    optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008
    schedule: ScheduleSettings = ScheduleSettings(),  # noqa: B008
    engine: EngineSettings = EngineSettings(),  # noqa: B008
    resume: bool = False,
    other_settings: bool = False,
) -> None:
    """Train a model on a folder of images until it is small (dkm) or elastic (lcs, subspace), alone or reinforced.

    dkm learns weights that are 1 to 8 bits of index into small palettes. lcs gives one file that runs at any share of
    weights, width or number of bits, chosen at run time; subspace one file with a whole line, curve or simplex of
    models. The result is a run; run:DIR@keep=0.25 names a level of it wherever a model is named.

    Args:
        run: the model to begin with: a run, timm:NAME@FILE.safetensors, or timm:NAME (from scratch).
        method: subspace, lcs or dkm; its own settings are dotted flags of its name.
        data: the training images, e.g. folder:photos/train.
        out: the run folder to make.
        reinforcement: what a teacher said about these images (buttress reinforce).
        val: labelled images to score on after each epoch.
        class_map: YAML file, class of --val -> class that the model learns, as for buttress evaluate.
        policy: augmentation where no reinforcement brings its own, as for buttress train; the default is randaug.
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
        subspace: of --method subspace.
        lcs: of --method lcs.
        dkm: of --method dkm.
        loss: what a step minimises.
        optimizer: how gradients become steps.
        schedule: how the learning rate changes.
        engine: how a step is computed, and what is kept on the way.
        resume: go on with the run in --out from its last whole checkpoint.
        other_settings: with --resume, go on also with other settings than the run was started with.
    """
    recipe = as_recipe(locals())
    every: dict[str, MethodSettings] = {"subspace": subspace, "lcs": lcs, "dkm": dkm}
    _refuse_idle(method, every)
    if other_settings and not resume:
        raise SettingsError("--other-settings: says how to go on, so it needs --resume")
    if missing == "hard" and reinforcement is None:
        raise SettingsError("--missing hard: says what to do without stored labels, so it needs --reinforcement DIR")
    if class_map is not None and val is None:
        raise SettingsError("--class-map: is of --val; leave it out")
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
    from buttress.compression.compress import compress_on_source
    from buttress.compression.summary import print_summary
    from buttress.sources import open_source
    from buttress.store.reader import open_reinforcement
    from buttress.terminal import note
    from buttress.training.data import TrainingData
    from buttress.views.presets import read_policy

    policy = policy or (None if reinforcement is not None else "randaug")
    recipe = {key: value for key, value in recipe.items() if key not in every or key == method}
    made = compress_on_source(
        TrainingData(
            source=open_source(data),
            policy=None if policy is None else read_policy(policy),
            reinforcement=None if reinforcement is None else open_reinforcement(reinforcement),
            missing=missing,
            val=None if val is None else open_source(val),
            val_map=class_map,
            max_bad=max_bad,
        ),
        model=run,
        method=every[method],
        out=out,
        settings=settings,
        size=size,
        resume=resume,
        other_settings=other_settings,
        recipe=recipe,
    )
    print_summary(made)
    what = "every level of it" if made.levels() else "it"
    note(
        f"{out}: done; score {what} by buttress evaluate {out} --data ...; "
        f"write {'a level' if made.levels() else 'it'} by buttress export {out} --format onnx --out ..."
    )


def _refuse_idle(method: str, every: Mapping[str, MethodSettings]) -> None:
    """Raises: SettingsError, where settings of another method were given."""
    if other := [name for name, told in every.items() if name != method and told != type(told)()]:
        raise SettingsError(f"--{other[0]}.*: is of --method {other[0]}, and this is {method}; leave it out")
    if idle := every[method].idle():
        raise SettingsError(f"--{method}.{idle[0]}: changes nothing beside the other --{method} flags; leave it out")

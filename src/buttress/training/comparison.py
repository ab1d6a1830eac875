"""The same model trained in several ways and with several seeds, scored on the same images.

Shapes: N test images, C classes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError
from buttress.metrics.calibration import reliability_bins, top1
from buttress.metrics.evaluate import figures_of
from buttress.metrics.risk_coverage import risk_coverage
from buttress.metrics.score import score
from buttress.sources import Source
from buttress.terminal import note
from buttress.training.data import TrainingData
from buttress.training.settings import TrainingSettings
from buttress.training.train import train_on_source

FIGURES = ("top1", "ece", "nll")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Args:
        name: short name, fit for a file.
        title: how a table calls it.
        data: what it learns from.
    """

    name: str
    title: str
    data: TrainingData


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of one arm.

    Args:
        arm: the arm.
        steps: updates of every one of its trainings.
        logits: seed -> float32 [N, C] on the test images.
        labels: int64 [N].
    """

    arm: Arm
    steps: int
    logits: Mapping[int, NDArray[np.float32]]
    labels: NDArray[np.int64]


def compare(
    arms: Sequence[Arm],
    *,
    model: str,
    size: int,
    settings: TrainingSettings,
    seeds: Sequence[int],
    test: Source,
    out: Path,
) -> list[Outcome]:
    """Train `model` once per arm and seed, with nothing else different, and score each at its last epoch.

    Args:
        arms: what to compare.
        model: URI of the model, the same for all.
        size: side of the views, pixels.
        settings: of the training; the seed in it is not used.
        seeds: one training each.
        test: labelled images that no arm learns from.
        out: folder of the runs, `NAME-SEED`.

    Raises:
        SettingsError: the arms do not make the same number of updates.
    """
    outcomes = []
    for arm in arms:
        logits, steps, labels = {}, 0, np.empty(0, np.int64)
        for seed in seeds:
            run = train_on_source(
                arm.data, model=model, out=out / f"{arm.name}-{seed}", settings=replace(settings, seed=seed), size=size
            )
            evaluation = score(run.load_model(), test)
            logits[seed], labels, steps = evaluation.logits, evaluation.labels, run.read_metrics()[-1]["step"]
            note(f"{arm.name}, seed {seed}: top-1 {evaluation.figures['top1']['value']:.3f}")
        outcomes.append(Outcome(arm=arm, steps=steps, logits=logits, labels=labels))
    if len({outcome.steps for outcome in outcomes}) > 1:
        counts = ", ".join(f"{outcome.arm.name} {outcome.steps}" for outcome in outcomes)
        raise SettingsError(f"the trainings differ in their number of steps ({counts}); repair or remove broken images")
    return outcomes


def row_of(outcome: Outcome) -> dict[str, Any]:
    """A row of the table as JSON: per seed, mean and standard deviation; reliability bins and risk over all seeds."""
    per_seed = {seed: figures_of(logits, outcome.labels) for seed, logits in outcome.logits.items()}
    pooled, labels = np.concatenate(list(outcome.logits.values())), np.tile(outcome.labels, len(per_seed))
    return {
        "name": outcome.arm.name,
        "title": outcome.arm.title,
        "steps": outcome.steps,
        "seeds": [
            {"seed": seed, **{name: figures[name]["value"] for name in FIGURES}} for seed, figures in per_seed.items()
        ],
        **{name: spread([_value(figures[name]) for figures in per_seed.values()]) for name in FIGURES},
        "reliability": [asdict(each) for each in _bins(pooled, labels)],
        "risk_coverage": _risk_coverage(pooled, labels),
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation; no deviation of a single value."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}


def gain_of(
    raw: Mapping[str, Any], reinforced: Mapping[str, Any], clean: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Differences of the means between rows; the gain holds where top-1 is higher and NLL lower.

    `clean_top1` is what right labels alone would bring; none where there is no such row.
    """
    gain = {name: reinforced[name]["mean"] - raw[name]["mean"] for name in FIGURES}
    clean_top1 = None if clean is None else clean["top1"]["mean"] - raw["top1"]["mean"]
    return {**gain, "clean_top1": clean_top1, "holds": gain["top1"] > 0 and gain["nll"] < 0}


def _value(figure: Mapping[str, Any]) -> float:
    return float(figure["value"])


def _risk_coverage(logits_NC: NDArray[np.float32], labels_N: NDArray[np.int64]) -> dict[str, list[float]]:
    import torch

    confidence_N, predicted_N = top1(torch.from_numpy(logits_NC))
    curve = risk_coverage(confidence_N, predicted_N == torch.from_numpy(labels_N))
    return {"coverage": list(curve.coverage), "risk": list(curve.risk)}


def _bins(logits_NC: NDArray[np.float32], labels_N: NDArray[np.int64]) -> tuple[Any, ...]:
    import torch

    return reliability_bins(torch.from_numpy(logits_NC), torch.from_numpy(labels_N))

"""Accuracy on corrupted images: constructed models, batch size and threads change nothing, the sample is balanced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from buttress.loading.targets import Batch
from buttress.metrics.corruptions import COMMON, CORRUPTIONS, corrupt
from buttress.metrics.robustness import (
    Robustness,
    balanced_sample,
    corrupted_scores,
    errors_against,
    mean_corruption_error,
)
from buttress.models.load import LoadedModel
from buttress.models.preprocessing import Preprocessing
from buttress.sources.identity import id_hash

IDENTITY = Preprocessing(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bicubic", crop_pct=1.0)


class Brighter(nn.Module):
    """Two classes: the mean of the image is below or above a half."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Parameter(torch.tensor(0.5))

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([self.middle - mean, mean - self.middle], dim=1)


def loaded(module: nn.Module) -> LoadedModel:
    return LoadedModel(
        module=module,
        preprocessing=IDENTITY,
        classes=("a", "b"),
        uri="timm:none",
        weights_sha256=None,
        licence=None,
        pretrained=False,
        name="none",
        kwargs={"num_classes": 2},
    )


def pictures() -> Batch:
    """Ten noisy grey images, of 0.2 to 0.8 in the mean."""
    generator = np.random.default_rng(0)
    means = np.linspace(50, 205, 10)[:, None, None, None]
    pixels = (means + generator.normal(0, 20, (10, 16, 16, 3))).clip(0, 255).astype(np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Batch(images, torch.tensor([0] * 5 + [1] * 5), tuple(f"{number}.png" for number in range(10)))


def scores(**options: Any) -> Robustness:
    return corrupted_scores(loaded(Brighter()), pictures(), classes=2, groups=None, device="cpu", **options)


def test_every_condition_is_scored_on_the_very_images():
    told = scores(seed=3)
    assert told.clean_N.all()
    assert set(told.corrupted_SN) == set(CORRUPTIONS)
    images = pictures().images.permute(0, 2, 3, 1).numpy()
    for name in ("brightness", "fog", "shot_noise"):
        for severity in (1, 5):
            means = [
                corrupt(image, name, severity, seed=3, id_hash=id_hash(f"{number}.png")).mean() / 255
                for number, image in enumerate(images)
            ]
            right = [(mean > 0.5) == (number >= 5) for number, mean in enumerate(means)]
            assert told.corrupted_SN[name][severity - 1].tolist() == right
    details = told.details()
    assert details["clean"]["value"] == 1
    assert [figure["count"] for figure in details["brightness"]] == [10] * 5
    error = np.mean([1 - figure["value"] for name in COMMON for figure in details[name]])
    told_error = told.figures()["corruption_error"]
    assert told_error["value"] == pytest.approx(error)
    assert told_error["count"] == 10


def test_batch_and_threads_change_nothing():
    one = scores().details()
    assert scores(batch=3, workers=0).details() == one
    assert scores(batch=1, workers=4).details() == one


def test_mean_corruption_error_by_hand():
    def details(clean: float, corrupted: float, first: float) -> dict[str, Any]:
        told: dict[str, Any] = {name: [{"value": corrupted}] * 5 for name in COMMON}
        told["fog"] = [{"value": first}] * 5
        return {"clean": {"value": clean}, **told}

    ours, baseline = details(0.9, 0.7, 0.5), details(0.8, 0.4, 0.2)
    assert mean_corruption_error(ours, ours) == pytest.approx(1)
    assert mean_corruption_error(ours, baseline) == pytest.approx((14 * 0.3 / 0.6 + 0.5 / 0.8) / 15)
    assert mean_corruption_error(ours, baseline, relative=True) == pytest.approx((14 * 0.2 / 0.4 + 0.4 / 0.6) / 15)


def test_no_mean_corruption_error_against_a_baseline_without_one():
    def details(clean: float, corrupted: float) -> dict[str, Any]:
        return {"clean": {"value": clean}, **{name: [{"value": corrupted}] * 5 for name in COMMON}}

    ours = details(0.9, 0.7)
    assert mean_corruption_error(ours, details(1.0, 1.0)) is None
    assert mean_corruption_error(ours, details(0.8, 0.85), relative=True) is None
    uneven = details(0.8, 0.8)
    uneven["fog"] = [{"value": value} for value in (0.85, 0.75, 0.8, 0.8, 0.8)]
    assert mean_corruption_error(ours, uneven, relative=True) is None
    told = errors_against(scores(), details(1.0, 1.0))
    assert told["mce"] == {"value": None, "count": 10, "low": None, "high": None}


def test_a_sample_is_balanced_seeded_and_independent_of_the_order():
    labels = np.array([0] * 50 + [1] * 8 + [2] * 30 + [-1] * 12)
    ids = [f"{number}.png" for number in range(100)]
    chosen = balanced_sample(labels, ids, 30, 0)
    assert np.bincount(labels[chosen]).tolist() == [11, 8, 11]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    order = np.random.default_rng(0).permutation(100)
    again = balanced_sample(labels[order], [ids[place] for place in order], 30, 0)
    assert {ids[order[place]] for place in again} == {ids[place] for place in chosen}
    assert set(balanced_sample(labels, ids, 30, 1).tolist()) != set(chosen.tolist())
    assert len(balanced_sample(labels, ids, 1000, 0)) == 88

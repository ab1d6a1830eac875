"""The scale curve: its sides, the model's own accuracy in its middle, models that cannot."""

from __future__ import annotations

import pytest
import torch

from buttress.metrics.scale import score_scales, sides_of
from buttress.metrics.score import score
from buttress.models.load import load_model
from buttress.sources import Subset, open_source


@pytest.mark.parametrize(
    ("size", "sides"),
    [(224, [112, 160, 224, 288, 336, 448]), (32, [16, 32, 48, 64]), (50, [25, 38, 50, 62, 75, 100]), (1, [1, 2])],
)
def test_sides_run_from_half_to_twice(size, sides):
    assert sides_of(size) == sides


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_the_curve_goes_through_the_models_own_accuracy_and_leaves_it_alone(name):
    source = Subset(open_source("digits"), list(range(60)))
    loaded = load_model(f"timm:{name}", num_classes=10, seed=0)
    before = {key: value.clone() for key, value in loaded.module.state_dict().items()}
    curve = score_scales(loaded, source)
    size = loaded.preprocessing.size
    assert [each["side"] for each in curve] == sides_of(size)
    own = next(each["top1"] for each in curve if each["side"] == size)
    assert own == score(loaded, source).figures["top1"]
    assert all(each["top1"]["count"] == 60 for each in curve)
    assert all(torch.equal(value, before[key]) for key, value in loaded.module.state_dict().items())


def test_a_side_that_a_model_cannot_take_has_no_value(monkeypatch, capsys):
    source = Subset(open_source("digits"), list(range(20)))
    loaded = load_model("timm:test_resnet", num_classes=10, seed=0)
    forward = loaded.module.forward

    def fussy(images):
        if images.shape[-1] > loaded.preprocessing.size:
            raise ValueError("too large")
        return forward(images)

    monkeypatch.setattr(loaded.module, "forward", fussy)
    values = {each["side"]: each["top1"]["value"] for each in score_scales(loaded, source)}
    assert {side for side, value in values.items() if value is None} == {
        side for side in values if side > loaded.preprocessing.size
    }
    assert "too large" in capsys.readouterr().err

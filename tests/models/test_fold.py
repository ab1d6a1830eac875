"""A classifier cut to some of its outputs: the same weights, the same logits, in the architecture of so few outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import nn

from buttress.errors import ModelError
from buttress.models.fold import with_outputs
from buttress.models.load import LoadedModel, load_model

COLUMNS = [7, 3, 90, 0, 55]
NAMES = ["a", "b", "c", "d", "e"]


def loaded(name: str) -> LoadedModel:
    """A model of 100 outputs whose logits differ from one another."""
    model = load_model(f"timm:{name}", num_classes=100, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in heads(model.module):
        nn.init.normal_(layer.weight, std=0.1, generator=generator)
        nn.init.normal_(layer.bias, generator=generator)
    return replace(model, classes=tuple(map(str, range(100))))


def heads(module: nn.Module) -> list[Any]:
    found = cast(Any, module).get_classifier()
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "dpn48b", "deit_tiny_distilled_patch16_224"]
)
def test_the_columns_are_the_very_same_weights_and_give_the_cut_logits(name):
    whole = loaded(name)
    folded = with_outputs(whole, COLUMNS, NAMES)
    assert folded.classes == tuple(NAMES)
    assert folded.num_classes == 5
    for before, after in zip(heads(whole.module), heads(folded.module), strict=True):
        assert torch.equal(after.weight, before.weight[COLUMNS])
        assert torch.equal(after.bias, before.bias[COLUMNS])
    backbone = {key: value for key, value in whole.module.state_dict().items() if value.shape[:1] != (100,)}
    assert all(torch.equal(value, folded.module.state_dict()[key]) for key, value in backbone.items())
    size = whole.preprocessing.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        cut = whole.module.eval()(images)[:, COLUMNS]
        mine = folded.module.eval()(images)
    torch.testing.assert_close(mine, cut, rtol=1e-6, atol=1e-6)  # the order of sums in a product is the library's own
    assert cut.std() > 0.1


def test_the_whole_is_left_as_it_was():
    whole = loaded("test_resnet")
    before = {key: value.clone() for key, value in whole.module.state_dict().items()}
    with_outputs(whole, COLUMNS, NAMES)
    assert all(torch.equal(value, before[key]) for key, value in whole.module.state_dict().items())
    assert whole.num_classes == 100


def test_another_kind_of_classifier_is_refused_in_one_line(monkeypatch):
    model = load_model("timm:levit_128s", num_classes=100, seed=0)
    with pytest.raises(ModelError, match=r"the classifier of levit_128s is NormLinear, not one linear layer"):
        with_outputs(model, COLUMNS, NAMES)
    whole = loaded("test_resnet")
    monkeypatch.setattr(whole.module, "get_classifier", lambda: nn.Linear(4, 100))  # not a layer of the network
    with pytest.raises(ModelError, match="cannot be folded"):
        with_outputs(whole, COLUMNS, NAMES)
    monkeypatch.setattr(whole.module, "get_classifier", lambda: whole.module.get_submodule("layer1.0.conv1"))
    with pytest.raises(ModelError, match=r"is Conv2d, not .* with 100 outputs"):
        with_outputs(whole, COLUMNS, NAMES)

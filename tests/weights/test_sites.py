from typing import Any

import timm
import torch
from torch import nn

from buttress.weights.sites import classifier_of, sites


def test_every_convolution_linear_layer_and_norm_is_found_in_order():
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 2))
    told = [(site.full_name, site.kind) for site in sites(model)]
    assert told == [
        ("0.weight", "conv"),
        ("1.weight", "norm"),
        ("1.bias", "norm"),
        ("3.weight", "linear"),
        ("3.bias", "linear"),
    ]
    assert [site.full_name for site in sites(model, "conv", "linear", tensors=("weight",))] == ["0.weight", "3.weight"]


def test_timms_own_layers_are_found():
    for name in ("test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_nfnet", "test_byobnet"):
        model: Any = timm.create_model(name, num_classes=5)
        found = {id(site.parameter) for site in sites(model)}
        missed = [n for n, p in model.named_parameters() if id(p) not in found]
        # positions, tokens, scales and gains: parameters of no layer
        assert all(not n.endswith(("weight", "bias")) for n in missed), (name, missed)
        assert classifier_of(model) is model.get_classifier()


def test_a_parametrized_tensor_is_still_a_site_and_can_be_baked():
    class Double(nn.Module):
        def forward(self, w):
            return 2 * w

    model: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    plain = [site.parameter for site in sites(model)]
    before = model[0].weight.detach().clone()
    for site in sites(model):
        site.register(Double())
    assert all(site.parameter is p for site, p in zip(sites(model), plain, strict=True))
    kept = plain[0].detach().clone()
    for site in sites(model):
        site.bake()
    assert type(model[0]) is nn.Linear and type(model[1]) is nn.BatchNorm1d
    assert torch.equal(model[0].weight, 2 * before)
    assert torch.equal(plain[0], kept)  # it may be shared, and keeps its own value
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]

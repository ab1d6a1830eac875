"""Batch norms folded into convolutions: the same answers, fewer layers; and what cannot be folded is left."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from buttress.models.batch_norm import NORMS, without_batch_norms


def settled(model: nn.Module) -> Any:
    """In evaluation, with statistics and weights of batch norms as after a training."""
    torch.manual_seed(0)
    parts: list[Any] = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in parts:
        if part.track_running_stats:
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)
            if part.affine:
                nn.init.uniform_(part.weight, 0.7, 1.3)
                nn.init.normal_(part.bias, 0, 0.2)
    return model.eval().requires_grad_(False)


def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def norms(model: nn.Module) -> int:
    return sum(isinstance(part, NORMS) for part in model.modules())


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "mobilevit_xxs", "tf_efficientnet_lite0", "resnet18"]
)
def test_answers_stay_the_same(name):
    model = settled(timm.create_model(name))
    plain, there = model(images()), norms(model)
    folded = without_batch_norms(model, 32)
    assert norms(folded) == 0 and norms(model) == there > 0
    assert torch.equal(model(images()), plain), "the model itself stays as it is"
    torch.testing.assert_close(folded(images()), plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_convolution_takes_over_what_its_norm_did(bias, affine, groups):
    layers = nn.Conv2d(3, 6, 3, bias=bias, groups=groups), nn.BatchNorm2d(6, affine=affine)
    parts = settled(nn.Sequential(*layers))
    folded: Any = without_batch_norms(parts, 32)
    assert isinstance(folded[1], nn.Identity)
    torch.testing.assert_close(folded[0](images()), parts(images()), rtol=1e-5, atol=1e-5)


class Odd(nn.Module):
    """A norm that does not simply follow a convolution."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one: Any = nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> Any:
        made = self.one(x)
        if self.kind == "seen by others":
            return self.norm(made) + made
        if self.kind == "norm used twice":
            return self.norm(made) + self.norm(self.other(x))
        if self.kind == "convolution used twice":
            return self.norm(made) + self.one(made)
        if self.kind == "two norms":
            return self.norm(made) + self.last(made)
        if self.kind == "written to":  # which noise alone, whose averages are near 0, would not show
            return self.norm(nn.functional.hardtanh_(made, -2, 2))
        if self.kind == "looks at its norm":
            return self.norm(made) * self.norm.weight.sum()
        return self.one(self.norm(x))


@pytest.mark.parametrize(
    "kind",
    [
        *("seen by others", "norm used twice", "convolution used twice", "two norms", "norm before"),
        *("written to", "looks at its norm"),
    ],
)
def test_what_cannot_be_folded_is_left(kind):
    model = settled(Odd(kind))
    assert without_batch_norms(model, 32) is model


@pytest.mark.parametrize("other", [nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3).train()])
def test_norms_of_the_batch_are_left(other):
    model = nn.Sequential(nn.Conv2d(3, 3, 3), other)
    assert without_batch_norms(model, 32) is model


def test_other_kinds_of_convolutions_are_left():
    class Scaled(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    model = settled(nn.Sequential(Scaled(3, 3, 3), nn.BatchNorm2d(3)))
    assert without_batch_norms(model, 32) is model


def test_a_network_without_finite_answers_is_left():
    model = settled(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    model[0].weight.mul_(torch.inf)
    assert without_batch_norms(model, 32) is model

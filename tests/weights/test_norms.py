"""Norms in the place of batch norms against sums written out, and what of the batch norms stays."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from buttress.weights.norms import GroupNormAct, InstanceNormAct, groups_of, without_statistics


def naive(x, groups, weight, bias, eps):
    """Each group of channels of each image: mean 0, variance 1; in float64."""
    out = torch.empty_like(x, dtype=torch.float64)
    size = x.shape[1] // groups
    for n in range(len(x)):
        for g in range(groups):
            part = x[n, g * size : (g + 1) * size].double()
            values = part.flatten().tolist()
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            out[n, g * size : (g + 1) * size] = (part - mean) / (variance + eps) ** 0.5
    shape = (-1, *[1] * (x.ndim - 2))
    return out * weight.double().view(shape) + bias.double().view(shape)


def replaced(norm, kind):
    model = nn.Sequential(norm)
    assert without_statistics(model, kind) == 1
    return model[0]


def drawn(norm):
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    return norm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "groups", "side"), [(48, 24, 8), (64, 32, 3), (5, 5, 7)])
def test_group_norm(channels, groups, side, layout, training):
    torch.manual_seed(0)
    norm = replaced(drawn(nn.BatchNorm2d(channels, eps=1e-3)), "group").train(training)
    x = torch.randn(2, channels, side, side).to(memory_format=layout).requires_grad_()
    y = norm(x)
    wanted = naive(x.detach(), groups, norm.weight.detach(), norm.bias.detach(), 1e-3)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=1e-4)
    assert y.is_contiguous(memory_format=layout)
    weights = torch.randn_like(x)
    (got,) = torch.autograd.grad((y * weights).sum(), x)
    other = nn.functional.group_norm(x.double(), groups, norm.weight.double(), norm.bias.double(), 1e-3)
    (wanted,) = torch.autograd.grad((other * weights).sum(), x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("far", [30.0, 300.0])
def test_group_norm_of_maps_far_from_zero(far):
    torch.manual_seed(0)
    norm = replaced(drawn(nn.BatchNorm2d(48)), "group").train()
    x = (torch.randn(2, 48, 8, 8) + far).to(memory_format=torch.channels_last)
    wanted = naive(x, 24, norm.weight.detach(), norm.bias.detach(), norm.eps)
    torch.testing.assert_close(norm(x).double(), wanted, rtol=1e-3, atol=1e-3)
    flat = norm(torch.full_like(x, far))
    assert (flat.mean((0, 2, 3)) - norm.bias).abs().max() < 0.05


def test_what_follows_may_change_the_result_in_place():
    norm = replaced(drawn(nn.BatchNorm2d(8)), "group").train()
    x = torch.randn(2, 8, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    torch.relu_(norm(x)).sum().backward()
    other = x.detach().contiguous().requires_grad_()
    torch.relu(norm(other)).sum().backward()
    assert x.grad is not None and other.grad is not None
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_instance_norm_uses_the_first_channels():
    torch.manual_seed(0)
    norm = replaced(drawn(nn.BatchNorm2d(8)), "instance")
    x = torch.randn(2, 8, 4, 4)
    for channels in (8, 3):
        weight, bias = norm.weight[:channels].detach(), norm.bias[:channels].detach()
        wanted = naive(x[:, :channels], channels, weight, bias, norm.eps)
        torch.testing.assert_close(norm(x[:, :channels]).double(), wanted, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 2000))
def test_groups_divide_the_channels_and_are_at_most_32(channels):
    groups = groups_of(channels)
    assert channels % groups == 0 and groups <= 32
    assert not any(channels % more == 0 for more in range(groups + 1, min(32, channels) + 1))


@pytest.mark.parametrize("kind", ["group", "instance"])
def test_weights_activations_and_dropouts_stay_what_they_were(kind):
    model = timm.create_model("test_efficientnet")
    before = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    count = len(before)
    assert without_statistics(model, kind) == count
    for name, old in before.items():
        new = model.get_submodule(name)
        assert isinstance(new, GroupNormAct if kind == "group" else InstanceNormAct)
        assert new.weight is old.weight and new.bias is old.bias
        assert new.act is old.act and new.drop is old.drop and new.eps == old.eps
    assert not [name for name in model.state_dict() if "running" in name or "num_batches" in name]
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 1000)


def test_other_norms_and_modes_are_left_alone():
    model = timm.create_model("test_vit")
    assert without_statistics(model, "group") == 0
    assert isinstance(model.norm, nn.LayerNorm)
    assert not replaced(nn.BatchNorm2d(8).eval(), "group").training


def test_a_norm_under_two_names_stays_one():
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(norm, nn.Conv2d(4, 4, 1), norm)
    assert without_statistics(model, "group") == 1
    assert model[0] is model[2]


def test_no_group_of_a_vector_is_a_single_value():
    norm = replaced(nn.BatchNorm1d(16), "group")
    assert norm(torch.randn(3, 16)).abs().max() > 0.1


def test_norms_without_weights():
    for kind in ("group", "instance"):
        norm = replaced(nn.BatchNorm2d(4, affine=False), kind)
        assert not list(norm.parameters())
        assert norm(torch.randn(2, 4, 3, 3)).mean().abs() < 1e-5

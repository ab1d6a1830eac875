"""Slim layers against plain ones with sliced weights."""

import copy

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.weights.lcs_nets import images, network
from timm.layers import Conv2dSame  # type: ignore[attr-defined]
from torch import nn

from buttress.errors import ModelError
from buttress.weights.norms import without_statistics
from buttress.weights.sites import classifier_of
from buttress.weights.slimming import SlimConv2d, SlimLinear, channels_at, cut, inputs_of, make_slim


def slim(model, width=1.0, low=0.25):
    layers = make_slim(model, classifier_of(model), low, 1.0)
    without_statistics(model, "instance")
    for layer in layers:
        layer.width = width
    return model


def test_channels_round_half_to_even_and_are_never_none():
    assert channels_at(0.375, 16) == 6
    assert [channels_at(0.25, channels) for channels in (1, 2, 6, 10, 14)] == [1, 1, 2, 2, 4]
    assert channels_at(1.0, 33) == 33


@given(st.floats(0.25, 1), st.integers(1, 6), st.integers(1, 9), st.booleans(), st.integers(1, 2))
def test_a_convolution_is_the_plain_one_with_the_first_channels(width, inputs, outputs, bias, stride):
    plain = nn.Conv2d(6, outputs, 3, stride, 1, bias=bias).double()
    layer = SlimConv2d(plain)
    layer.follow(0.25, 1.0, whole=False)
    layer.set_level((width,), layer)
    kept = max(1, round(width * outputs))
    alone = nn.Conv2d(inputs, kept, 3, stride, 1, bias=bias).double()
    with torch.no_grad():
        alone.weight.copy_(plain.weight[:kept, :inputs])
        if bias:
            assert alone.bias is not None and plain.bias is not None
            alone.bias.copy_(plain.bias[:kept])
        x = torch.randn(2, inputs, 5, 5, dtype=torch.float64)
        assert torch.equal(layer(x), alone(x))
        assert torch.equal(layer.cut(inputs)(x), alone(x))
    assert layer.weight is plain.weight and layer.bias is plain.bias


@pytest.mark.parametrize("inputs", [8, 3])
def test_a_depthwise_convolution_follows_its_input(inputs):
    plain = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    assert plain.bias is not None
    layer = SlimConv2d(plain)
    layer.follow(0.25, 1.0, whole=False)
    x = torch.randn(2, inputs, 5, 5)
    with torch.no_grad():
        wanted = torch.cat(
            [
                nn.functional.conv2d(x[:, c : c + 1], plain.weight[c : c + 1], plain.bias[c : c + 1], padding=1)
                for c in range(inputs)
            ],
            1,
        )
        torch.testing.assert_close(layer(x), wanted)
        torch.testing.assert_close(layer.cut(inputs)(x), wanted)
    assert layer.cut(inputs).groups == inputs


def test_padding_as_tensorflow_does_stays():
    plain = Conv2dSame(4, 6, 3, stride=2)
    layer = SlimConv2d(plain)
    layer.follow(0.5, 1.0, whole=False)
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
        layer.width = 0.5
        assert torch.equal(layer(x), plain(x)[:, :3])
        assert torch.equal(layer.cut(4)(x), layer(x))
    assert type(layer.cut(4)) is Conv2dSame


def test_a_linear_layer_is_the_plain_one_with_the_first_features():
    plain = nn.Linear(10, 7)
    layer = SlimLinear(plain)
    layer.follow(0.25, 1.0, whole=False)
    layer.width = 0.5
    x = torch.randn(3, 4)
    with torch.no_grad():
        wanted = x @ plain.weight[:4, :4].T + plain.bias[:4]
        torch.testing.assert_close(layer(x), wanted)
        torch.testing.assert_close(layer.cut(4)(x), wanted)


def test_gradients_flow_to_the_first_channels_alone():
    layer = SlimConv2d(nn.Conv2d(4, 4, 1))
    layer.follow(0.25, 1.0, whole=False)
    layer.width = 0.5
    layer(torch.ones(1, 3, 2, 2)).sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad[:2, :3] != 0).all()
    assert layer.weight.grad.count_nonzero() == 6


@pytest.mark.parametrize("name", ["tiny", "test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_names_and_parameters_stay_and_at_the_highest_width_nothing_changes(name):
    torch.manual_seed(0)
    model = network() if name == "tiny" else timm.create_model(name, num_classes=5)
    normed = copy.deepcopy(model).eval()
    without_statistics(normed, "instance")
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    slim(model.eval())
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == parameters
    x = images(2, 6 if name == "tiny" else 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), normed(x))


@pytest.mark.parametrize("width", [0.25, 0.6])
def test_widths_of_a_network(width):
    model = slim(network(), width)
    given = {model.get_submodule(str(n)): n for n in (0, 3, 6, 11, 13)}
    seen = {given[module]: inputs for module, inputs in inputs_of(model).items() if module in given}
    c16, c24, c20 = (round(width * channels) for channels in (16, 24, 20))
    assert seen == {0: 3, 3: c16, 6: c24, 11: c24, 13: c20}
    cut(model)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["0.weight"] == (c16, 3, 3, 3)
    assert shapes["1.weight"] == (c16,)
    assert shapes["3.weight"] == (c24, c16, 1, 1)
    assert shapes["6.weight"] == (c24, 1, 3, 3)
    assert shapes["11.weight"] == (c20, c24)
    assert shapes["13.weight"] == (5, c20) and shapes["13.bias"] == (5,)


def test_maps_are_flattened_channel_by_channel():
    first, hidden, last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(32, 6), nn.Linear(6, 2)
    model = slim(copy.deepcopy(nn.Sequential(first, nn.AdaptiveAvgPool2d(2), nn.Flatten(), hidden, last)), 0.5)
    x = images()
    with torch.no_grad():
        maps = nn.functional.adaptive_avg_pool2d(first(x)[:, :4], 2).flatten(1)
        features = maps @ hidden.weight[:3, :16].T + hidden.bias[:3]
        torch.testing.assert_close(model(x), features @ last.weight[:, :3].T + last.bias)


@pytest.mark.parametrize("width", [0.25, 0.375, 1.0])
@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "tf_mobilenetv3_small_075"]
)
def test_a_cut_network_is_plain_and_has_the_same_logits(name, width):
    torch.manual_seed(0)
    model = slim(timm.create_model(name, num_classes=5).eval(), width)
    x = images(2, 64)
    with torch.no_grad():
        before = model(x)
        cut(model)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    assert not any(isinstance(module, (SlimConv2d, SlimLinear)) for module in model.modules())
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)


def test_a_trial_leaves_modes_as_they_were():
    model = slim(network())
    model[6].eval()
    inputs_of(model)
    assert model.training and model[0].training and not model[6].training
    assert not model[6]._forward_pre_hooks


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit", r"^lcs: VisionTransformer cannot run at width=0\.25 \(it calls cat: .*\); use lcs\.level keep or"),
        ("test_convnext", r"^lcs: ConvNeXt cannot run at width=0\.25 \(.*\); use lcs\.level keep or bits$"),
        ("densenet121", r"^lcs: DenseNet cannot run at width=0\.25 \(it calls cat: "),
        ("regnetx_002", r"^lcs: s1\.b1\.conv2\.conv has 3 groups; only plain and depthwise ones can be slim; use "),
        ("test_nfnet", r"^lcs: stem\.conv1 is a ScaledStdConv2d, which cannot be slim; use lcs\.level keep or bits$"),
    ],
)
def test_what_cannot_be_slim_is_told_in_one_line(name, message):
    model = timm.create_model(name)
    with pytest.raises(ModelError, match=message) as told:
        inputs_of(slim(model, 0.25))
    assert "\n" not in str(told.value)


def test_padding_by_reflection_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(
        ModelError, match=r"^lcs: 0 pads by reflect; only zeros can be slim; use lcs\.level keep or bits$"
    ):
        slim(model)
    assert type(model[0]) is nn.Conv2d

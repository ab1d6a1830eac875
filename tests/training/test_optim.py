"""Who is decayed, and which rate every update has."""

import math
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from buttress.errors import SettingsError
from buttress.training.optim import carry_over, create_optimizer, learning_rate, plain_groups, set_learning_rate
from buttress.training.settings import OptimizerSettings, ScheduleSettings

from .tiny import network


def decay_of(groups):
    return {id(p): group["weight_decay"] for group in groups for p in group["params"]}


def test_biases_and_norms_are_not_decayed():
    model = network()
    decays = decay_of(plain_groups(model, 0.05))
    told = {name: decays[id(p)] for name, p in model.named_parameters()}
    assert told == {"0.weight": 0.05, "1.weight": 0, "1.bias": 0, "6.weight": 0.05, "6.bias": 0}


def test_what_a_timm_model_lists_is_not_decayed():
    model: Any = timm.create_model("test_vit", num_classes=3)
    decays = decay_of(plain_groups(model, 0.05))
    assert decays[id(model.pos_embed)] == 0
    assert decays[id(model.patch_embed.proj.weight)] == 0.05


def test_groups_follow_parameters_through_a_method():
    class Scaled(nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.gain, self.mix = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(shape))

        def forward(self, weight):
            return weight * self.gain + self.mix

    model: Any = network()
    groups = plain_groups(model, 0.05)
    parametrize.register_parametrization(model[6], "weight", Scaled(model[6].weight.shape))
    model[0] = nn.Identity()
    carried = decay_of(carry_over(groups, model))
    parametrized = model[6].parametrizations.weight
    assert set(carried) == {id(p) for p in model.parameters()}
    assert carried[id(parametrized.original)] == carried[id(parametrized[0].mix)] == 0.05
    assert carried[id(parametrized[0].gain)] == carried[id(model[6].bias)] == 0


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].weight.requires_grad_(False)
    assert id(model[0].weight) not in decay_of(carry_over(plain_groups(model, 0.05), model))


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizers_come_by_name_and_keep_the_groups(name, kind):
    settings = OptimizerSettings(name=name, weight_decay=0.02, momentum=0.8)
    optimizer = create_optimizer(plain_groups(network(), 0.02), settings, 0.3)
    assert isinstance(optimizer, kind)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0, 0.02]
    assert name != "sgd" or optimizer.param_groups[0]["momentum"] == 0.8


def test_an_unknown_optimizer_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match=r"optimizer\.name = adamww: .*did you mean adamw"):
        create_optimizer(plain_groups(network(), 0.0), OptimizerSettings(name="adamww"), 0.1)


def test_settings_that_an_optimizer_does_not_take_are_refused():
    with pytest.raises(SettingsError, match=r"optimizer\.name = sgd: Nesterov momentum requires a momentum"):
        create_optimizer(plain_groups(network(), 0.0), OptimizerSettings(name="sgd", momentum=0.0), 0.1)


def test_update_zero_has_its_share_of_the_warm_up():
    schedule = ScheduleSettings(warmup=0.1)
    assert [learning_rate(step, 40, 1.0, schedule) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_by_hand():
    schedule = ScheduleSettings(warmup=0, min_lr=0.1)
    rates = [learning_rate(step, 4, 0.9, schedule) for step in range(4)]
    assert rates == pytest.approx([0.1 + 0.4 * (1 + math.cos(math.pi * step / 4)) for step in range(4)])


@given(
    st.integers(1, 300), st.floats(0, 1), st.sampled_from(["cosine", "constant"]), st.floats(0, 1), st.floats(1e-6, 1)
)
def test_the_rate_rises_to_the_peak_and_falls_from_it(total, warmup, name, floor, peak):
    schedule = ScheduleSettings(name=name, warmup=warmup, min_lr=floor * peak)
    rates = [learning_rate(step, total, peak, schedule) for step in range(total)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(peak)
    assert min(rates) > 0 or total == 1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_groups_may_scale_the_rate():
    optimizer = torch.optim.SGD([{"params": network().parameters(), "lr_scale": 0.5}], lr=9.0)
    set_learning_rate(optimizer, 0.2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", [ValueError, AssertionError, TypeError, ImportError, RuntimeError])
def test_whatever_timm_says_of_an_optimizer_is_told_in_one_line(monkeypatch, kind):
    def refuse(*_, **__):
        raise kind("two\n  lines")

    monkeypatch.setattr("buttress.training.optim.create_optimizer_v2", refuse)
    with pytest.raises(SettingsError, match=r"^optimizer\.name = adamw: two lines$"):
        create_optimizer(plain_groups(network(), 0.0), OptimizerSettings(name="adamw"), 0.1)


def test_an_optimizer_of_the_second_order_is_refused():
    with pytest.raises(SettingsError, match="adahessian: needs second derivatives"):
        create_optimizer(plain_groups(network(), 0.0), OptimizerSettings(name="adahessian"), 0.1)

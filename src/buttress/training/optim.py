"""Optimizer and learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim import (  # type: ignore[attr-defined]  # timm re-exports without saying so
    create_optimizer_v2,
    list_optimizers,
    param_groups_weight_decay,
)
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from buttress.errors import SettingsError
from buttress.nearest import did_you_mean
from buttress.training.settings import OptimizerSettings, ScheduleSettings

ParameterGroups = list[dict[str, Any]]
FUSED = ("adam", "adamw", "sgd")  # by torch in one pass over the memory: measured, a quarter of the time on a CPU


def plain_groups(model: nn.Module, weight_decay: float) -> ParameterGroups:
    """Parameter groups of the plain model, before any method: biases, norms and what it lists are not decayed."""
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    groups: ParameterGroups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared)
    return groups


def carry_over(groups: ParameterGroups, prepared: nn.Module) -> ParameterGroups:
    """The plain model's groups on the prepared one, by identity of parameters.

    A parameter that a parametrization has added goes to the group of the one that it parametrizes where it has its
    shape, as another corner of a weight has; any other new one follows the same rule by shape. One that a method has
    removed drops out.
    """
    trained = [p for p in prepared.parameters() if p.requires_grad]
    kept, parents = {id(p) for p in trained}, _parents(prepared)
    carried = []
    known: set[int] = set()
    for group in groups:
        plain = {id(p) for p in group["params"]}
        added = [p for p in trained if id(p) not in plain and parents.get(id(p)) in plain]
        params = [p for p in group["params"] if id(p) in kept] + added
        known |= {id(p) for p in params}
        carried.append({**group, "params": params})
    decay = max((group["weight_decay"] for group in groups), default=0.0)
    added = [p for p in trained if id(p) not in known]
    carried.append({"params": [p for p in added if p.ndim <= 1], "weight_decay": 0.0})
    carried.append({"params": [p for p in added if p.ndim > 1], "weight_decay": decay})
    return [group for group in carried if group["params"]]


def _parents(prepared: nn.Module) -> dict[int, int]:
    """Of each parameter inside a parametrization, the plain one of its shape that it belongs to; both by identity."""
    lists = [each for each in prepared.modules() if isinstance(each, ParametrizationList) and each.is_tensor]
    return {id(p): id(each.original) for each in lists for p in each.parameters() if p.shape == each.original.shape}


def create_optimizer(groups: ParameterGroups, settings: OptimizerSettings, lr: float) -> torch.optim.Optimizer:
    """An optimizer of timm's by name.

    Raises:
        SettingsError: timm has none of that name, or it does not take these settings.
    """
    known = [str(name) for name in list_optimizers()]
    if settings.name not in known:
        hint = did_you_mean(settings.name, known)
        raise SettingsError(f"optimizer.name = {settings.name}: timm has no such optimizer{hint}")
    fused: Any = {"fused": True} if settings.name in FUSED and _fusable(groups) else {}
    try:
        optimizer = create_optimizer_v2(
            groups, settings.name, lr=lr, weight_decay=settings.weight_decay, momentum=settings.momentum, **fused
        )
    # E.g. timm's sgd is Nesterov's and wants a momentum (its "momentum" does not); some need CUDA or another package.
    except (ValueError, AssertionError, TypeError, ImportError, RuntimeError) as failure:
        why = " ".join(str(failure).split()) or type(failure).__name__
        raise SettingsError(f"optimizer.name = {settings.name}: {why}") from failure
    if getattr(optimizer, "is_second_order", False):
        raise SettingsError(f"optimizer.name = {settings.name}: needs second derivatives, which are not computed here")
    return optimizer


def _fusable(groups: ParameterGroups) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for group in groups for p in group["params"])


def learning_rate(step: int, total_steps: int, peak: float, schedule: ScheduleSettings) -> float:
    """The rate of update `step` (0..total_steps-1): a linear rise that reaches `peak`, then cosine or constant.

    Ours because timm's schedule gives update 0 a rate of 0, and a scheduler stepped after the update gives it the peak.
    """
    warmup_steps = math.ceil(schedule.warmup * total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule.name == "constant":
        return peak
    done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return schedule.min_lr + (peak - schedule.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group this rate, scaled where a group has `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)

"""Norms without stored statistics, in the place of batch norms: statistics of one level are wrong at every other."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, instance_norm
from torch.nn.modules.batchnorm import _BatchNorm

from buttress.errors import ModelError

GROUPS = 32
SMALL_MAP = 36  # pixels; up to so many the channels-last kernel is the faster one


class GroupNormAct(nn.GroupNorm):
    """Group norm with what timm keeps inside of its batch norms, a dropout and an activation.

    Args:
        groups: divides `channels`.
        channels: C of inputs [B, C, ...].
        eps: added to the variance.
        affine: has weight and bias.
        drop, act: applied to what is normalised, in this order.
    """

    def __init__(self, groups: int, channels: int, eps: float, affine: bool, drop: nn.Module, act: nn.Module) -> None:
        super().__init__(groups, channels, eps, affine, device="meta")
        self.drop, self.act = drop, act

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(self._normalised(input)))
        return y

    def _normalised(self, x: Tensor) -> Tensor:
        # measured: half the time of the CPU's own kernel for maps of this layout, copies included
        if self.training and x.device.type == "cpu" and _is_channels_last(x) and x[0, 0].numel() > SMALL_MAP:
            plain = group_norm(x.contiguous(), self.num_groups, self.weight, self.bias, self.eps)
            return plain.contiguous(memory_format=torch.channels_last)
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNormAct(nn.InstanceNorm2d):
    """Instance norm, likewise. Inputs may have fewer channels than it has weights: the first ones are used.

    Args:
        channels: C of inputs [B, C, H, W] with more than one pixel.
        eps: added to the variance.
        affine: has weight and bias.
        drop, act: applied to what is normalised, in this order.

    Raises (a forward): ModelError, where a map is one pixel.
    """

    def __init__(self, channels: int, eps: float, affine: bool, drop: nn.Module, act: nn.Module) -> None:
        super().__init__(channels, eps, affine=affine, device="meta")
        self.drop, self.act = drop, act

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2:].numel() < 2:
            raise ModelError(
                f"an instance norm of {self.num_features} channels is given maps of one pixel, which it would make 0; "
                "use larger images (--size) or lcs.level keep or bits"
            )
        channels = input.shape[1]
        weight, bias = (None if of is None else of[:channels] for of in (self.weight, self.bias))
        y: Tensor = self.act(self.drop(instance_norm(input, weight=weight, bias=bias, eps=self.eps)))
        return y


def groups_of(channels: int, most: int = GROUPS) -> int:
    """How many groups a group norm has: the largest divisor of `channels` up to `most`."""
    return max(groups for groups in range(1, min(most, channels) + 1) if channels % groups == 0)


def without_statistics(model: nn.Module, kind: Literal["group", "instance"]) -> int:
    """Put group norms (of up to 32 groups) or instance norms in the place of all batch norms, in place.

    Weight and bias stay the same `Parameter` objects, timm's activations and dropouts stay too; other norms are left
    alone (arXiv 2110.04252).

    Returns: how many there were.
    """
    made: dict[int, nn.Module] = {}
    for owner in list(model.modules()):
        for name, child in list(owner._modules.items()):  # named_children() leaves out a second name of a norm
            if isinstance(child, _BatchNorm):
                if id(child) not in made:
                    made[id(child)] = _replacement(child, kind)
                setattr(owner, name, made[id(child)])
    return len(made)


def _replacement(norm: _BatchNorm, kind: Literal["group", "instance"]) -> nn.Module:
    drop, act = (getattr(norm, name, None) or nn.Identity() for name in ("drop", "act"))
    channels, new = norm.num_features, cast(Any, None)
    if kind == "instance":
        new = InstanceNormAct(channels, norm.eps, norm.affine, drop, act)
    else:
        # a group of one channel has one value where there is no map, and would always be 0
        most = min(GROUPS, max(channels // 2, 1)) if isinstance(norm, nn.BatchNorm1d) else GROUPS
        new = GroupNormAct(groups_of(channels, most), channels, norm.eps, norm.affine, drop, act)
    new.weight, new.bias = norm.weight, norm.bias
    return cast(nn.Module, new.train(norm.training))


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()

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
        if self.training and self.affine and x.dtype == self.weight.dtype and _is_large_channels_last(x):
            y: Tensor = _ByPixels.apply(x, self.weight, self.bias, self.num_groups, self.eps)
            return y
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class _ByPixels(torch.autograd.Function):
    """Group norm of channels-last maps on a CPU, in a third of the time of torch's own (measured).

    Its sums run over the pixels P of [N, P, C], all channels at once; what is left is done on [N, C].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, groups: int, eps: float) -> Tensor:
        mean_NC = _group_means(x, groups)
        room = x - _of_maps(mean_NC)  # later the result: new memory is what costs most here
        variance_NC = _group_means(room.square_(), groups)
        rstd_NC = (variance_NC + eps).rsqrt_()
        scale_NC = rstd_NC * weight_C
        torch.addcmul(_of_maps(bias_C - mean_NC * scale_NC), x, _of_maps(scale_NC), out=room)
        ctx.groups = groups
        ctx.save_for_backward(x, weight_C, mean_NC, rstd_NC)
        return room

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight_C, mean_NC, rstd_NC = ctx.saved_tensors
        gradient, groups, pixels = gradients[0], ctx.groups, x[0, 0].numel()
        room = gradient * x
        sums_NC = _sums(gradient)
        products_NC = (_sums(room) - mean_NC * sums_NC) * rstd_NC  # of the gradient and what was normalised
        slope_NC = -_shared(products_NC * weight_C, groups, pixels) * rstd_NC * rstd_NC
        shift_NC = -_shared(sums_NC * weight_C, groups, pixels) * rstd_NC - slope_NC * mean_NC
        torch.addcmul(_of_maps(shift_NC), x, _of_maps(slope_NC), out=room)
        room.addcmul_(gradient, _of_maps(rstd_NC * weight_C))
        return room, products_NC.sum(0), sums_NC.sum(0), None, None


def _group_means(x: Tensor, groups: int) -> Tensor:
    return _shared(_sums(x), groups, x[0, 0].numel())


def _sums(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1)


def _shared(sums_NC: Tensor, groups: int, pixels: int) -> Tensor:
    """Sums over pixels -> means over groups, repeated for each channel of a group."""
    images, channels = sums_NC.shape
    if groups == channels:
        return sums_NC / pixels
    means_NG1 = sums_NC.view(images, groups, -1).mean(-1, keepdim=True) / pixels
    return means_NG1.expand(-1, -1, channels // groups).reshape(images, channels)


def _of_maps(x_NC: Tensor) -> Tensor:
    return x_NC[:, :, None, None]


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


def _is_large_channels_last(x: Tensor) -> bool:
    if x.device.type != "cpu" or x.ndim != 4 or x.shape[2] * x.shape[3] <= SMALL_MAP:
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()

"""Batch norms made part of the convolutions before them, in networks that only answer."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

CONVOLUTIONS, NORMS = (nn.Conv2d, Conv2dSame), (nn.BatchNorm2d, BatchNormAct2d)
SAME = 1e-4  # of the largest logit: what may change; another order of float32 operations changes a hundredth of it
FLAT = (-2.0, 2.0)  # values of the images that are tried beside those of noise: about black and white


def without_batch_norms(model: nn.Module, size: int) -> nn.Module:
    """A copy whose batch norms are multiplied into the convolutions whose output they normalise, all or none of them.

    Which these are is seen in one forward pass: only layers of the very types of torch and timm, used once, with
    nothing done to the output on its way. A copy whose answers differ by more than rounding is thrown away.

    Args:
        model: in evaluation, float32, on the CPU.
        size: side of the images that it takes, pixels.

    Returns: the copy, or the model itself where nothing can be folded.
    """
    if not any(type(part) in NORMS for part in model.modules()):
        return model
    noise_BCHW = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    images_BCHW = torch.cat([noise_BCHW, *(torch.full((1, 3, size, size), value) for value in FLAT)])
    folded = copy.deepcopy(model)
    with torch.no_grad():
        before, pairs = _watched(folded, images_BCHW)
        if not pairs or not isinstance(before, Tensor):
            return model
        for name, convolution in pairs:
            norm = folded.get_submodule(name)
            _fold(convolution, norm)
            folded.set_submodule(name, _after(norm))
        try:
            difference = folded(images_BCHW) - before
        except (AttributeError, TypeError, RuntimeError):  # it looks at what its norms are made of
            return model
    same = bool((difference.abs() <= SAME * before.abs().max()).all())  # not so where there is a NaN
    return folded if same else model


@dataclass
class _Seen:
    """What a forward pass showed.

    Args:
        made: outputs of convolutions, and how often they had been written to by then.
        followed: names of norms with the convolution whose output they were given.
        used: how often each convolution was.
    """

    made: list[tuple[weakref.ref[Tensor], int, nn.Conv2d]] = field(default_factory=list)
    followed: list[tuple[str, nn.Conv2d]] = field(default_factory=list)
    used: Counter[int] = field(default_factory=Counter)

    @property
    def pairs(self) -> list[tuple[str, nn.Conv2d]]:
        """Names of norms, with the convolution that each of them alone follows."""
        followers = Counter(id(convolution) for _, convolution in self.followed)
        names = Counter(name for name, _ in self.followed)
        return [
            (name, convolution)
            for name, convolution in self.followed
            if followers[id(convolution)] == self.used[id(convolution)] == names[name] == 1
        ]


def _watched(model: nn.Module, images_BCHW: Tensor) -> tuple[Any, list[tuple[str, nn.Conv2d]]]:
    """The model's answers, and its norms that can be folded, by name, with their convolutions."""
    seen = _Seen()

    def convolved(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        seen.made.append((weakref.ref(output), output._version, layer))
        seen.used[id(layer)] += 1

    def normalised(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for made, version, convolution in seen.made:
                if made() is inputs[0] and inputs[0]._version == version:
                    seen.followed.append((name, convolution))

        return hook

    hooks = [part.register_forward_hook(convolved) for part in model.modules() if type(part) in CONVOLUTIONS]
    for name, part in model.named_modules():
        if type(part) in NORMS and part.running_mean is not None and not part.training:
            hooks.append(part.register_forward_pre_hook(normalised(name)))
    try:
        return model(images_BCHW), seen.pairs
    finally:
        for hook in hooks:
            hook.remove()


def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    """y = (w x + b - mean) scale + shift, with scale = weight / sqrt(variance + eps)."""
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = torch.zeros_like(scale)
    if norm.weight is not None:
        scale, shift = scale * norm.weight.double(), norm.bias.double()
    bias = 0.0 if convolution.bias is None else convolution.bias.double()
    moved = (bias - norm.running_mean.double()) * scale + shift
    convolution.weight.copy_(convolution.weight.double() * scale[:, None, None, None])
    convolution.bias = nn.Parameter(moved.to(convolution.weight.dtype), requires_grad=False)


def _after(norm: nn.Module) -> nn.Module:
    """What a norm of timm's does besides."""
    return norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()

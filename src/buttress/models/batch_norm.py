"""Batch norms made part of the convolutions before them, in networks that only answer."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

CONVOLUTIONS, NORMS = (nn.Conv2d, Conv2dSame), (nn.BatchNorm2d, BatchNormAct2d)
SAME = 1e-4  # of the largest logit: what may change; another order of float32 operations changes a hundredth of it


def fold_batch_norms(model: nn.Module, images_BCHW: Tensor) -> int:
    """Multiply the statistics and weights of batch norms into the convolutions whose output they normalise; in place.

    Which these are is seen in one forward pass. Only layers of the very types of torch and timm are taken, and only
    where they are used once; a model whose answers change by more than rounding is left as it was.

    Args:
        model: in evaluation, float32.
        images_BCHW: a few images to try it with.

    Returns: how many batch norms are gone.
    """
    pairs = _pairs(model, images_BCHW)
    if not pairs:
        return 0
    before = _answers(model, images_BCHW)
    kept = [(convolution, copy.deepcopy(convolution.state_dict()), convolution.bias) for _, convolution in pairs]
    norms = {name: model.get_submodule(name) for name, _ in pairs}
    for name, convolution in pairs:
        _fold(convolution, norms[name])
        model.set_submodule(name, _after(norms[name]))
    difference = _answers(model, images_BCHW) - before
    if bool((difference.abs() <= SAME * before.abs().max()).all()):  # not so where there is a NaN
        return len(pairs)
    for convolution, state, bias in kept:
        convolution.bias = bias
        convolution.load_state_dict(state)
    for name, norm in norms.items():
        model.set_submodule(name, norm)
    return 0


@dataclass
class _Seen:
    """What a forward pass showed.

    Args:
        made: outputs of convolutions, kept, so that no other tensor takes their place.
        followed: names of norms with the convolution whose output they were given.
        used: how often each layer was.
    """

    made: list[tuple[Tensor, nn.Conv2d]] = field(default_factory=list)
    followed: list[tuple[str, nn.Conv2d]] = field(default_factory=list)
    used: Counter[int] = field(default_factory=Counter)


def _pairs(model: nn.Module, images_BCHW: Tensor) -> list[tuple[str, nn.Conv2d]]:
    """Names of norms, with the convolution each of them alone follows."""
    if not any(type(part) in NORMS for part in model.modules()):
        return []
    seen = _Seen()
    with _watched(model, seen):
        _answers(model, images_BCHW)
    followers = Counter(id(convolution) for _, convolution in seen.followed)
    names = Counter(name for name, _ in seen.followed)
    return [
        (name, convolution)
        for name, convolution in seen.followed
        if followers[id(convolution)] == seen.used[id(convolution)] == names[name] == 1
    ]


@contextmanager
def _watched(model: nn.Module, seen: _Seen) -> Iterator[None]:
    def convolved(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        seen.made.append((output, layer))
        seen.used[id(layer)] += 1

    def normalised(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for made, convolution in seen.made:
                if made is inputs[0]:
                    seen.followed.append((name, convolution))

        return hook

    hooks = [part.register_forward_hook(convolved) for part in model.modules() if type(part) in CONVOLUTIONS]
    for name, part in model.named_modules():
        if type(part) in NORMS and part.running_mean is not None and not part.training:
            hooks.append(part.register_forward_pre_hook(normalised(name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _answers(model: nn.Module, images_BCHW: Tensor) -> Tensor:
    with torch.no_grad():
        answers: Tensor = model(images_BCHW)
    return answers


def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    """y = (w x + b - mean) scale + shift, with scale = weight / sqrt(variance + eps)."""
    with torch.no_grad():
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

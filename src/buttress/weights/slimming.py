"""Layers whose width is chosen at run time: the first channels are used (arXiv 2110.04252, section on structure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from timm.layers import Conv2dSame, pad_same  # type: ignore[attr-defined]  # timm re-exports without saying so
from timm.layers import Linear as TimmLinear  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from buttress.errors import ModelError
from buttress.weights.levels import Level, Levelled, Point, require_between
from buttress.weights.norms import InstanceNormAct
from buttress.weights.sites import sites

ELSE = "use lcs.level keep or bits"
DEFAULT_SIZE = 64  # pixels of the trial image, where the model does not say what it was made for


def channels_at(width: float, channels: int) -> int:
    """How many of `channels` there are at a width: `round(width * channels)`, halves to even, and at least one."""
    return max(1, round(width * channels))


class Slim(Levelled):
    """What slim layers share. Where they stand, `width`, is a plain number: it decides shapes.

    width: share of the output channels, above 0 and at most 1; input channels follow the input.
    whole: all output channels are used at each width, as of a classifier.
    """

    level_kind = "width"
    width: float
    low: float
    high: float
    whole: bool

    def follow(self, low: float, high: float, whole: bool) -> None:
        """Take levels `low` to `high`; stand at the latter."""
        self.width, self.low, self.high, self.whole = high, low, high, whole

    def require(self, point: Point) -> None:
        require_between(Level("width", (point,)), self.low, self.high)

    def set_level(self, point: Point, owner: nn.Module) -> None:
        self.require(point)
        (self.width,) = point

    def outputs(self, channels: int) -> int:
        """How many of the output channels there are now."""
        return channels if self.whole else channels_at(self.width, channels)


class SlimConv2d(nn.Conv2d, Slim):
    """A convolution, plain or depthwise, with the first of its channels.

    Args:
        conv: shares its parameters with this one.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            *(conv.in_channels, conv.out_channels, cast(Any, conv.kernel_size), cast(Any, conv.stride)),
            *(cast(Any, conv.padding), cast(Any, conv.dilation), conv.groups, conv.bias is not None),
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.same = isinstance(conv, Conv2dSame)  # pads as TensorFlow does

    def forward(self, input: Tensor) -> Tensor:
        if self.same:
            input = cast(Any, pad_same)(input, self.kernel_size, self.stride, self.dilation)
        inputs = input.shape[1]
        weight, bias = self.first(inputs)
        groups = inputs if self.groups > 1 else 1
        return conv2d(input, weight, bias, self.stride, 0 if self.same else self.padding, self.dilation, groups)

    def first(self, inputs: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for so many input channels."""
        outputs = inputs if self.groups > 1 else self.outputs(self.out_channels)
        return _first(self.weight, self.bias, outputs, 1 if self.groups > 1 else inputs)

    def cut(self, inputs: int) -> nn.Module:
        """A plain convolution of what is used now."""
        weight, bias = self.first(inputs)
        made = (Conv2dSame if self.same else nn.Conv2d)(
            *(inputs, len(weight), cast(Any, self.kernel_size), cast(Any, self.stride)),
            *(cast(Any, self.padding), cast(Any, self.dilation), inputs if self.groups > 1 else 1, bias is not None),
            device="meta",
        )
        return _with(made, weight, bias)


class SlimLinear(nn.Linear, Slim):
    """A linear layer with the first of its features.

    Args:
        layer: shares its parameters with this one.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, *self.first(input.shape[-1]))

    def first(self, inputs: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for so many input features."""
        return _first(self.weight, self.bias, self.outputs(self.out_features), inputs)

    def cut(self, inputs: int) -> nn.Module:
        """A plain layer of what is used now."""
        weight, bias = self.first(inputs)
        return _with(nn.Linear(inputs, len(weight), bias is not None, device="meta"), weight, bias)


def make_slim(model: nn.Module, classifier: nn.Module | None, low: float, high: float) -> list[Slim]:
    """Put slim layers in the place of all convolutions and linear layers, in place, and say which they are.

    classifier: keeps all its outputs.

    Raises: ModelError, for a layer that cannot be slim; the model is then as it was.
    """
    for site in sites(model, "conv", "linear", tensors=("weight",)):
        _require_known(site.name, site.module)
    made: dict[int, Slim] = {}

    def slim(module: nn.Module) -> nn.Module:
        if id(module) not in made:
            new = SlimConv2d(module) if isinstance(module, nn.Conv2d) else SlimLinear(cast(nn.Linear, module))
            new.follow(low, high, whole=module is classifier)
            made[id(module)] = new.train(module.training)
        return cast(nn.Module, made[id(module)])

    _swap(model, (nn.Conv2d, nn.Linear), slim)
    return list(made.values())


def cut(model: nn.Module, size: int | None = None) -> None:
    """Put plain layers of what is used now in the place of the slim ones; instance norms lose the weights unused."""
    inputs = inputs_of(model, size)
    _swap(model, (SlimConv2d, SlimLinear), lambda module: cast(SlimConv2d, module).cut(inputs[module]))
    for norm in [module for module in model.modules() if isinstance(module, InstanceNormAct)]:
        norm.num_features = inputs[norm]
        if norm.affine:
            _with(norm, norm.weight[: inputs[norm]], norm.bias[: inputs[norm]])


def inputs_of(model: nn.Module, size: int | None = None) -> dict[nn.Module, int]:
    """Run a random image through `model` as it stands; how many channels each slim layer and instance norm is given.

    size: of the image, pixels; none = the size that the model says it was made for, else 64.

    Raises: ModelError, where the architecture cannot be slim: sizes do not fit, or it joins or splits maps by channel,
        so that a channel's place would depend on the width.
    """
    watched = [module for module in model.modules() if isinstance(module, (SlimConv2d, SlimLinear, InstanceNormAct))]
    given: dict[nn.Module, int] = {module: _most_inputs(module) for module in watched}

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        given[module] = args[0].shape[-1 if isinstance(module, nn.Linear) else 1]

    handles = [module.register_forward_pre_hook(note) for module in watched]
    modes = {module: module.training for module in model.modules()}
    width = next(module.width for module in watched if isinstance(module, Slim))
    try:
        with torch.no_grad(), _NoJoins():  # type: ignore[no-untyped-call]
            model.eval()(_trial_image(model, size))
    except (RuntimeError, ValueError, IndexError, AssertionError) as failure:
        said = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
        why = (_norms_of_maps(model) if isinstance(failure, RuntimeError) else None) or said
        raise ModelError(f"lcs: {type(model).__name__} cannot run at width={width:g} ({why}); {ELSE}") from failure
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return given


def _most_inputs(module: nn.Module) -> int:
    """What a layer that the image does not come by is taken to be given."""
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.in_channels if isinstance(module, nn.Conv2d) else cast(InstanceNormAct, module).num_features


class _NoJoins(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to join or split tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("cat", "stack", "split", "split_with_sizes", "unbind", "chunk") and _maps(args[0]):
            raise ValueError(f"it calls {name}: where a channel lies would depend on the width")
        return func(*args, **(kwargs or {}))


def _maps(given: Tensor | Sequence[Tensor]) -> bool:
    return (given if isinstance(given, Tensor) else given[0]).ndim > 1


def _trial_image(model: nn.Module, size: int | None) -> Tensor:
    told = getattr(model, "pretrained_cfg", None) or {}
    *_, height, width = (size, size) if size else told.get("input_size") or (DEFAULT_SIZE, DEFAULT_SIZE)
    weight = next(model.parameters())
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    shape = (1, 3 if first is None else first.in_channels, height, width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=weight.dtype).to(weight.device)


def _require_known(name: str, module: nn.Module) -> None:
    kind, where = type(module).__name__, f"lcs: {name}"
    if isinstance(module, Slim):
        raise ModelError(f"{where} is slim already; a model takes one method of width")
    if type(module) in (nn.Linear, TimmLinear):  # the latter differs where it is scripted
        return
    if type(module) not in (nn.Conv2d, Conv2dSame):
        raise ModelError(f"{where} is a {kind}, which cannot be slim; {ELSE}")
    assert isinstance(module, _ConvNd)
    if module.groups > 1 and not module.groups == module.in_channels == module.out_channels:
        raise ModelError(f"{where} has {module.groups} groups; only plain and depthwise ones can be slim; {ELSE}")
    if module.padding_mode != "zeros":
        raise ModelError(f"{where} pads by {module.padding_mode}; only zeros can be slim; {ELSE}")


def _norms_of_maps(model: nn.Module) -> str | None:
    """What to say of norms that have a weight for every channel there ever is."""
    kinds = sorted({type(each).__name__ for each in model.modules() if isinstance(each, (nn.LayerNorm, nn.GroupNorm))})
    return f"its channels cannot be cut where it has {' and '.join(kinds)}" if kinds else None


def _swap(model: nn.Module, kinds: tuple[type[nn.Module], ...], by: Callable[[nn.Module], nn.Module]) -> None:
    for owner in list(model.modules()):
        for name, child in list(owner._modules.items()):
            if isinstance(child, kinds):
                setattr(owner, name, by(child))


def _first(weight: Tensor, bias: Tensor | None, outputs: int, inputs: int) -> tuple[Tensor, Tensor | None]:
    if weight.shape[:2] == (outputs, inputs):  # a slice of all would still be copied in the backward pass
        return weight, bias
    return weight[:outputs, :inputs], None if bias is None else bias[:outputs]


def _with(module: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            setattr(module, name, nn.Parameter(value.detach().clone()))
    return module

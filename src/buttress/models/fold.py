"""A classifier cut to some of its outputs, in its weights and for good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from buttress.errors import ModelError
from buttress.models.load import LoadedModel, build

if TYPE_CHECKING:
    from torch import nn


def with_outputs(loaded: LoadedModel, columns: Sequence[int], classes: Sequence[str]) -> LoadedModel:
    """The same network with only some of its outputs: output i is output `columns[i]` of before, weight by weight.

    Args:
        loaded: a timm model whose classifier is linear, or a 1x1 convolution (of two heads, both).
        columns: distinct outputs to keep, in the order wanted; at least 1.
        classes: their names.

    Raises:
        ModelError: the classifier is of another kind, or the architecture does not exist with so few outputs.
    """
    import torch

    assert len(set(columns)) == len(columns) == len(classes) > 0
    kept = torch.tensor(list(columns))
    state = dict(loaded.module.state_dict())
    for name, layer in _classifiers(loaded):
        for part in ("weight", "bias"):
            if getattr(layer, part) is not None:
                state[f"{name}.{part}"] = state[f"{name}.{part}"][kept].clone()
    kwargs = {**loaded.kwargs, "num_classes": len(columns)}
    module = build(loaded.name, kwargs)
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as failure:
        raise ModelError(
            f"{loaded.uri}: cannot be folded: {loaded.name} of {len(columns)} outputs has other weights than its "
            f"classifier's columns ({' '.join(str(failure).split())[:160]})"
        ) from failure
    return replace(loaded, module=module, classes=tuple(classes), kwargs=kwargs, weights_sha256=None)


def _classifiers(loaded: LoadedModel) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """The layers that give the outputs, with their names; most networks have one."""
    module = cast(Any, loaded.module)
    found = module.get_classifier() if hasattr(module, "get_classifier") else None
    layers = found if isinstance(found, (tuple, list)) else (found,)
    names = {layer: name for name, layer in module.named_modules()}
    for layer in layers:
        if layer not in names or not _is_linear(layer, loaded.num_classes):
            raise ModelError(
                f"{loaded.uri}: cannot be folded: the classifier of {loaded.name} is {type(layer).__name__}, not one "
                f"linear layer or 1x1 convolution with {loaded.num_classes:,} outputs; train it on the wanted classes"
            )
        yield names[layer], layer


def _is_linear(layer: object, outputs: int) -> bool:
    from torch import nn

    if isinstance(layer, nn.Linear):
        return layer.out_features == outputs
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels == outputs and layer.kernel_size == (1, 1) and layer.groups == 1
    return False

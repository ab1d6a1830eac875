"""Batch statistics anew, for weights that no training step has seen as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from buttress.errors import TrainingError

BATCHES = 100  # enough: the mean over so many batches hardly moves


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep statistics."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [norm for norm in norms if norm.track_running_stats and norm.running_mean is not None]


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, images: Iterable[Tensor], *, batches: int = BATCHES) -> int:
    """Set every batch norm's running statistics to the mean of those of the batches (arXiv 2102.10472).

    The variance is the unbiased one of a batch. All else runs as in evaluation (no dropout, weights as they will be
    used), and every module's mode is left as it was. Batches of one image say little, and count only where there are
    no others.

    Args:
        model: in place.
        images: batches, float32 [B, 3, H, W], on the model's device.
        batches: take at most so many.

    Returns: how many batches were taken; 0 where the model has no batch norm, or there are no images: then the
        statistics stay.

    Raises:
        TrainingError: batches of one image, of which a batch norm sees a single value per channel.
    """
    norms = batch_norms(model)
    if not norms:
        return 0
    before = [{name: value.clone() for name, value in norm.named_buffers(recurse=False)} for norm in norms]
    alone: list[Tensor] = []
    taken, whole = 0, False
    try:
        with _taking_statistics(model, norms):
            for batch_BCHW in images:
                if len(batch_BCHW) > 1:
                    _run(model, batch_BCHW)
                    taken += 1
                elif not taken:
                    alone.append(batch_BCHW)
                if batches in (taken, len(alone)):
                    break
            for image_1CHW in () if taken else alone:
                _run(model, image_1CHW)
        taken = taken or len(alone)
        whole = taken > 0
    finally:
        if not whole:
            for norm, kept in zip(norms, before, strict=True):
                for name, value in kept.items():
                    norm.get_buffer(name).copy_(value)
    return taken


def _run(model: nn.Module, batch_BCHW: Tensor) -> None:
    try:
        with parametrize.cached():  # not around all batches: whoever makes the images may go on elsewhere meanwhile
            model(batch_BCHW)
    except ValueError as failure:
        if "Expected more than 1 value per channel" not in str(failure):
            raise
        raise TrainingError(
            "batch statistics cannot be taken from batches of one image, of which a batch norm sees a single value; "
            "raise --batch"
        ) from failure


@contextmanager
def _taking_statistics(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Evaluation mode, but batch norms take the plain mean over batches; then all as it was."""
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training

"""Batch statistics anew, for weights that no training step has seen as they are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

BATCHES = 100  # enough: the mean over so many batches hardly moves


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep statistics."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [norm for norm in norms if norm.track_running_stats and norm.running_mean is not None]


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, images: Iterable[Tensor], *, batches: int = BATCHES) -> int:
    """Set every batch norm's running statistics to the mean of those of the batches (arXiv 2102.10472).

    The variance is the unbiased one of a batch. All else runs as in evaluation (no dropout, weights as they will be
    used), and every module's mode is left as it was. Batches of one image say nothing and are left out.

    Args:
        model: in place.
        images: batches, float32 [B, 3, H, W], on the model's device.
        batches: take at most so many.

    Returns: how many batches were taken; 0 where the model has no batch norm.
    """
    norms = batch_norms(model)
    if not norms:
        return 0
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    taken = 0
    try:
        for batch_BCHW in islice((batch for batch in images if len(batch) > 1), batches):
            with parametrize.cached():  # not around the loop: whoever makes the images may go on elsewhere meanwhile
                model(batch_BCHW)
            taken += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
    return taken

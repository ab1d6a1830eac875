"""Whether what was exported gives the logits of the run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from buttress.errors import ModelError
from buttress.metrics.evaluate import evaluating

BATCHES = (1, 3)
TOLERANCE = 1e-4  # of the largest logit
MATERIALISED = 1e-5  # between a compressed or elastic network and the plain one that is made of it
ROUNDED = 1e-2  # where layers round their inputs: a number half-way falls to one side here and to the other there


def require_agreement(
    module: nn.Module,
    other: Callable[[Tensor], Tensor],
    size: int,
    name: str,
    tolerance: float = TOLERANCE,
    advice: str = "export in another --format",
) -> None:
    """Compare two forms of a network on fixed batches of noise.

    Args:
        module: the run's.
        other: float32 [B, 3, size, size] -> logits [B, C].
        size: in pixels.
        name: of the other, for the error.
        tolerance: largest difference of two logits, as a share of the largest logit.
        advice: what to do where they differ.

    Raises:
        ModelError: their logits differ.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(max(BATCHES), 3, size, size, generator=generator)
    for batch in BATCHES:
        with evaluating(module, "cpu"):
            expected_BC, said_BC = module(images[:batch]), other(images[:batch])
        if said_BC.shape != expected_BC.shape:
            raise ModelError(
                f"{name} gives logits {list(said_BC.shape)} for a batch of {batch}; report the architecture"
            )
        apart = float((said_BC - expected_BC).abs().max() / expected_BC.abs().max().clamp(min=1e-30))
        if not apart <= tolerance:
            raise ModelError(
                f"{name} gives other logits for a batch of {batch} (up to {apart:.1e} of the largest apart, "
                f"{tolerance:.0e} allowed); {advice}"
            )

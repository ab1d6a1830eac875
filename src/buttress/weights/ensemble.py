"""Several points of a subspace as one model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MeanLogits(nn.Module):
    """The mean of the logits of several networks (arXiv 2102.10472: of points of one subspace)."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return torch.stack([member(images_BCHW) for member in self.members]).mean(0)

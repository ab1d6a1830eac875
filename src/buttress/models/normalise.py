"""uint8 images -> the numbers a model wants, on the device they are on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttress.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor


def normalise(images_BCHW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """`(images / 255 - mean) / std` in float32, in the memory format that came in.

    images_BCHW: uint8, RGB.
    """
    import torch

    std = torch.tensor(preprocessing.std, dtype=torch.float64)
    scale = (1 / (255 * std)).float().view(1, 3, 1, 1).to(images_BCHW.device)
    shift = (-torch.tensor(preprocessing.mean, dtype=torch.float64) / std).float().view(1, 3, 1, 1)
    return torch.addcmul(shift.to(images_BCHW.device), images_BCHW.float(), scale)

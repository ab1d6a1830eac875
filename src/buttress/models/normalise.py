"""uint8 images -> the numbers a model wants, on the device they are on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttress.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor


def normalise(images_BCHW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """`(images / 255 - mean) / std` in float32, in the memory format that came in.

    images_BCHW: uint8, RGB. A channels_last batch is scaled by rows, all channels in one vector: 5x faster on a CPU.
    """
    import torch

    std = torch.tensor(preprocessing.std, dtype=torch.float64)
    scale = (1 / (255 * std)).float().to(images_BCHW.device)
    shift = (-torch.tensor(preprocessing.mean, dtype=torch.float64) / std).float().to(images_BCHW.device)
    if not images_BCHW.is_contiguous(memory_format=torch.channels_last):
        return torch.addcmul(shift.view(1, 3, 1, 1), images_BCHW.float(), scale.view(1, 3, 1, 1))
    batch, channels, height, width = images_BCHW.shape
    rows = images_BCHW.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    scaled = rows.float().mul_(scale.repeat(width)).add_(shift.repeat(width))
    return scaled.view(batch, height, width, channels).permute(0, 3, 1, 2)

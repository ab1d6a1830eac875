"""uint8 images -> the numbers a model wants, on the device they are on."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from buttress.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def normalise(images_BCHW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """`(images / 255 - mean) / std` in float32, in the memory format that came in.

    images_BCHW: uint8, RGB. A channels_last batch is scaled by rows, all channels in one vector.
    """
    import torch

    if not images_BCHW.is_contiguous(memory_format=torch.channels_last):
        scale, shift = _scale_and_shift(preprocessing, images_BCHW.device, 1)
        return torch.addcmul(shift.view(1, 3, 1, 1), images_BCHW.float(), scale.view(1, 3, 1, 1))
    batch, channels, height, width = images_BCHW.shape
    scale, shift = _scale_and_shift(preprocessing, images_BCHW.device, width)
    rows = images_BCHW.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    scaled = rows.float().mul_(scale).add_(shift)
    return scaled.view(batch, height, width, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=32)
def _scale_and_shift(preprocessing: Preprocessing, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
    """float32 [3 width] each, so that `images * scale + shift` normalises a row of RGB pixels; kept from step to step.

    Made outside inference mode: a tensor made inside could not serve a training that comes after an evaluation.
    """
    import torch

    with torch.inference_mode(False):
        std = torch.tensor(preprocessing.std, dtype=torch.float64)
        scale = (1 / (255 * std)).float()
        shift = (-torch.tensor(preprocessing.mean, dtype=torch.float64) / std).float()
        return scale.repeat(width).to(device), shift.repeat(width).to(device)

"""Pictures as a page embeds them, and the names of what they show."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.models.imagenet import english_names, is_wordnet_id
from buttress.sources import Source, UndecodableImage, decode

SIDE = 112  # pixels of the longer side of a picture
SMALL = 64  # pixels: a view of at most this side is shown with its pixels visible
QUALITY = 82  # of JPEG, where bytes count more than pixels


def english(name: str) -> str:
    """The usual name of an ImageNet class that is given by its WordNet id; any other as it is."""
    return english_names(name)[0] if is_wordnet_id(name) else name


def picture(source: Source, place: int, *, compressed: bool = False) -> dict[str, Any] | None:
    """The sample as a picture of at most `SIDE` pixels a side, as `shown` has it; none where it cannot be decoded."""
    try:
        return shown(shrunk(decode(source[place].data)), compressed=compressed)
    except UndecodableImage:
        return None


def shown(image_HWC: NDArray[np.uint8], *, compressed: bool = False) -> dict[str, Any]:
    """An image as a page embeds it: `uri`, its PNG as data, and `pixels`, whether they are to stay visible.

    Args:
        image_HWC: uint8 [H, W, 3].
        compressed: a JPEG in place of the PNG, where the pixels need not stay visible.
    """
    from PIL import Image

    pixels = max(image_HWC.shape[:2]) <= SMALL
    kind = "JPEG" if compressed and not pixels else "PNG"
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HWC)).save(buffer, format=kind, optimize=True, quality=QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"uri": f"data:image/{kind.lower()};base64,{encoded}", "pixels": pixels}


def shrunk(pixels_HWC: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """An image whose longer side is at most `side` pixels."""
    import cv2

    height, width = pixels_HWC.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    return np.asarray(cv2.resize(pixels_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)

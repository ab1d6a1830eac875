"""The common corruptions of ImageNet-C, at any size (Hendrycks and Dietterich 2019, arXiv 1903.12261).

15 that make up the mean corruption error and 4 more, of severity 1 to 5 each. At 224 pixels their strengths are those
of the benchmark; lengths in pixels grow with the shorter side, and what is drawn in pixels (flakes, drops, an elastic
field) is drawn at 224 and resized. An image's corruption depends on the seed and the
sample's id alone. Unlike the benchmark's files these images were not compressed again, and its photographs of frost are
replaced by drawn ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from buttress.metrics.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from buttress.metrics.corruptions.digital import (
    brightness,
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from buttress.metrics.corruptions.noise import (
    Image,
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)
from buttress.metrics.corruptions.weather import fog, frost, snow, spatter

SEVERITIES = (1, 2, 3, 4, 5)

Corruption = Callable[[Image, int, np.random.Generator], Image]

COMMON: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
EXTRA: dict[str, Corruption] = {
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "spatter": spatter,
    "saturate": saturate,
}
CORRUPTIONS = {**COMMON, **EXTRA}
_SLOTS = {name: slot for slot, name in enumerate(CORRUPTIONS)}


def corrupt(image_HW3: NDArray[np.uint8], name: str, severity: int, *, seed: int, id_hash: int) -> NDArray[np.uint8]:
    """A corrupted copy of an image.

    Args:
        image_HW3: uint8 RGB.
        name: one of `CORRUPTIONS`.
        severity: 1..5.
        seed: of the evaluation.
        id_hash: of the sample (`buttress.sources.identity.id_hash`).
    """
    assert severity in SEVERITIES
    rng = np.random.Generator(np.random.Philox(key=(seed, 1), counter=(0, _SLOTS[name], severity, id_hash)))
    changed = CORRUPTIONS[name](image_HW3 * np.float32(1 / 255), severity, rng)
    pixels_HW3: NDArray[np.uint8] = np.rint(np.clip(changed, 0, 1) * np.float32(255)).astype(np.uint8)
    return pixels_HW3

"""Pictures that the tests of this room share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from buttress.views.draw import ViewParameters
from buttress.views.probes import probe_image

WHOLE = (0.0, 0.0, 1.0, 1.0)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Uniform noise: every grey level, no structure."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """Slow slopes of colour: resampling hardly changes it."""
    y, x = np.mgrid[0:height, 0:width]
    u, v = (x + 0.5) / width, (y + 0.5) / height
    waves = np.stack([np.sin(5 * u + 2 * v), np.cos(4 * v - 3 * u), np.sin(3 * u) * np.cos(4 * v)], axis=-1)
    return np.rint(127.5 + 110 * waves).astype(np.uint8)


def whole(**settings: object) -> ViewParameters:
    """Parameters that keep the whole image."""
    return ViewParameters(WHOLE, **settings)  # type: ignore[arg-type]


__all__ = ["WHOLE", "noise", "probe_image", "smooth", "whole"]

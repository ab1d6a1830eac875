"""Noise. Each takes an image, float32 [H, W, 3] in 0..1, a severity 1..5 and a generator, and gives one in 0..1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]  # float32 [H, W, 3], or a plane of it


def gaussian_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Normal noise, of electronics in low light."""
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    noisy: Image = image + np.float32(scale) * rng.standard_normal(image.shape, np.float32)
    return noisy


def shot_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Poisson noise, of light that comes in photons."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return (rng.poisson(image * photons) / np.float32(photons)).astype(np.float32)


def impulse_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Salt and pepper, channel by channel, as much of the one as of the other."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    chance = rng.random(image.shape, np.float32)
    return np.where(chance < share, (chance < share / 2).astype(np.float32), image)


def speckle_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Normal noise in proportion to the brightness."""
    scale = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    noisy: Image = image + image * np.float32(scale) * rng.standard_normal(image.shape, np.float32)
    return noisy

"""Weather. Each takes an image, float32 [H, W, 3] in 0..1, a severity 1..5 and a generator, and gives one in 0..1."""

from __future__ import annotations

import cv2
import numpy as np

from buttress.metrics.corruptions.blur import along_a_line, fitted, sides_at_224, smooth, zoomed
from buttress.metrics.corruptions.noise import Image

WATER = np.array((175, 238, 238), np.float32) / 255
MUD = np.array((63, 42, 20), np.float32) / 255
ICE = np.array((0.9, 1.0, 1.08), np.float32)  # bluish white, around 1


def snow(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Flakes that fall along a line, before a paler image."""
    mean, spread, zoom, least, radius, sigma, kept = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    flakes = np.float32(mean) + np.float32(spread) * rng.standard_normal(sides_at_224(image), np.float32)
    flakes = zoomed(flakes, zoom)
    flakes[flakes < least] = 0
    flakes = along_a_line(flakes.clip(0, 1), radius, sigma, float(rng.uniform(-135, -45)))
    flakes = fitted(flakes, image)[..., None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    paler = kept * image + (1 - kept) * np.maximum(image, 1.5 * grey + 0.5)
    snowy: Image = (paler + flakes + flakes[::-1, ::-1]).astype(np.float32)
    return snowy


def fog(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """A plasma fractal in front, the whole brought back to the brightest value."""
    density, decay = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    brightest = float(image.max())
    height, width = image.shape[:2]
    clouds = plasma(height, width, decay, rng)[..., None]
    return (image + np.float32(density) * clouds) * np.float32(brightest / (brightest + density))


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> Image:
    """A height map by the diamond-square algorithm (Fournier, Fussell and Carpenter 1982), float32 [H, W], 0..1.

    Args:
        decay: how much smaller the steps are that each halving of the grid adds.
    """
    side = 1 << (max(height, width) - 1).bit_length()
    grid = np.zeros((1, 1), np.float32)
    wibble = 100.0
    while len(grid) < side:
        grid = _finer(grid, wibble, rng)
        wibble /= decay
    low, high = float(grid.min()), float(grid.max())
    return (grid[:height, :width] - low) / np.float32(max(high - low, 1e-12))


def _finer(grid: Image, wibble: float, rng: np.random.Generator) -> Image:
    """A torus of twice the side: new points are the mean of their four neighbours plus a step."""
    side = len(grid)
    fine = np.empty((2 * side, 2 * side), np.float32)
    fine[::2, ::2] = grid
    right = np.roll(grid, -1, 1)
    middle = fine[1::2, 1::2]
    middle[:] = (grid + right + np.roll(grid, -1, 0) + np.roll(right, -1, 0)) / 4 + _steps(side, wibble, rng)
    fine[::2, 1::2] = (grid + right + middle + np.roll(middle, 1, 0)) / 4 + _steps(side, wibble, rng)
    fine[1::2, ::2] = (grid + np.roll(grid, -1, 0) + middle + np.roll(middle, 1, 1)) / 4 + _steps(side, wibble, rng)
    return fine


def _steps(side: int, wibble: float, rng: np.random.Generator) -> Image:
    return np.float32(wibble * wibble) * (2 * rng.random((side, side), np.float32) - 1)


def frost(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Ice on the lens. The crystals are drawn: the photographs of the benchmark have no licence."""
    kept, ice = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    height, width = image.shape[:2]
    return np.float32(kept) * image + np.float32(ice) * crystals(height, width, rng)


def crystals(height: int, width: int, rng: np.random.Generator) -> Image:
    """Needles of ice along the ridges of two fractals, on cloudy ground, float32 [H, W, 3], 0..1.

    Brightness, contrast and tint are like those of the benchmark's photographs: a mean of 0.5 to 0.8, and about 0.12 of
    standard deviation in one picture.
    """
    level = rng.uniform(0.5, 0.8)
    ridges = [1 - np.abs(2 * plasma(height, width, decay, rng) - 1) for decay in (1.3, 1.5)]
    needles = np.maximum(ridges[0], ridges[1]) ** 4
    ground = plasma(height, width, 2, rng)
    grains = rng.standard_normal((height, width), np.float32)
    ice = level + 0.3 * (ground - ground.mean()) + 0.4 * (needles - needles.mean()) + 0.05 * grains
    icy: Image = (ice[..., None] * ICE).clip(0, 1)
    return icy.astype(np.float32)


def spatter(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Drops of water, or from severity 4 on of mud, on the lens."""
    mean, spread, sigma, least, strength, mud = (
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    )[severity - 1]
    drops = np.float32(mean) + np.float32(spread) * rng.standard_normal(sides_at_224(image), np.float32)
    drops = smooth(drops, sigma)
    if mud:
        cover = smooth((drops > least).astype(np.float32), strength)
        cover[cover < 0.8] = 0
        cover = fitted(cover, image)[..., None]
        muddy: Image = image * (1 - cover) + MUD * cover
        return muddy
    drops = (drops * (drops >= least) * 255).clip(0, 255).astype(np.uint8)
    shine = drops * _relief(drops)
    brightest = float(shine.max())
    if brightest == 0:  # a dry lens
        return image
    return image + np.float32(strength / brightest) * fitted(shine, image)[..., None] * WATER


def _relief(drops: np.ndarray) -> Image:
    """Light and shade at the edges of drops, float32 [H, W], 0..255."""
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    embossed = cv2.filter2D(
        cv2.equalizeHist(near), cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    )
    relief: Image = cv2.blur(embossed, (3, 3)).astype(np.float32)
    return relief

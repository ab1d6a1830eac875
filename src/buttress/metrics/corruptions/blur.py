"""Blur. Each takes an image, float32 [H, W, 3] in 0..1, a severity 1..5 and a generator, and gives one in 0..1.

Lengths are those of images of 224 pixels and grow with the shorter side, so that a blur looks the same at any size.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from buttress.metrics.corruptions.noise import Image

FINER = 16  # points along a pixel's side
SIDE = 224  # pixels, of the images that the severities were chosen for


def scale_of(image: Image) -> float:
    """The shorter side in units of 224 pixels."""
    shorter: int = min(image.shape[:2])
    return shorter / SIDE


def sides_at_224(image: Image) -> tuple[int, int]:
    """Height and width of the image when its shorter side has 224 pixels."""
    scale = scale_of(image)
    return round(image.shape[0] / scale), round(image.shape[1] / scale)


def fitted(layer: Image, image: Image) -> Image:
    """A layer that was drawn at `sides_at_224` at the size of the image, float32 [H, W]."""
    height, width = image.shape[:2]
    if layer.shape == (height, width):
        return layer
    how = cv2.INTER_AREA if layer.shape[0] > height else cv2.INTER_LINEAR
    resized: Image = cv2.resize(layer, (width, height), interpolation=how)
    return resized


def smooth(plane: Image, sigma: float, border: int = cv2.BORDER_REPLICATE, truncate: float = 4.0) -> Image:
    """A Gaussian blur whose kernel ends at `truncate` sigmas."""
    radius = int(truncate * sigma + 0.5)
    blurred: Image = cv2.GaussianBlur(plane, (2 * radius + 1, 2 * radius + 1), sigma, borderType=border)
    return blurred


def gaussian_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """A Gaussian blur."""
    return smooth(image, (1, 2, 3, 4, 6)[severity - 1] * scale_of(image))


def defocus_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """A disk, as of a lens out of focus."""
    radius, edge = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    blurred: Image = cv2.filter2D(image, -1, disk(radius * scale_of(image), edge))
    return blurred


def disk(radius: float, edge: float) -> Image:
    """A disk of sum 1, smoothed by a Gaussian of `edge` pixels, in a square that holds it.

    A pixel has the share of it that the disk covers; the benchmark takes all or nothing, which a small disk cannot.
    """
    reach = max(8, math.ceil(radius))
    place = (np.arange((2 * reach + 1) * FINER) + 0.5) / FINER - reach - 0.5
    inside = (place[:, None] ** 2 + place**2 <= radius**2).astype(np.float32)
    kernel = inside.reshape(2 * reach + 1, FINER, 2 * reach + 1, FINER).mean(axis=(1, 3))
    side = 3 if radius <= 8 else 5
    smoothed: Image = cv2.GaussianBlur(kernel / kernel.sum(), (side, side), edge)
    return smoothed


def glass_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Pixels take the place of near ones between two light blurs, as behind frosted glass."""
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    sigma, reach = sigma * scale_of(image), max(1, round(reach * scale_of(image)))
    blurred = smooth(image, sigma)
    for _ in range(rounds):
        blurred = blurred.reshape(-1, 3)[_scattered(image.shape[0], image.shape[1], reach, rng)].reshape(image.shape)
    return smooth(blurred, sigma)


def _scattered(height: int, width: int, reach: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each of the H * W pixels the one whose colour it takes.

    From the last pixel to the first, each takes the colour that one at most `reach` away has by then; pixels at the
    borders keep theirs. What a pixel's colour was before all that is found by following the chain of takers, in steps
    that double.
    """
    pixel = np.arange(height * width).reshape(height, width)
    inside = np.zeros((height, width), bool)
    inside[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    down, right = rng.integers(-reach, reach, (2, height, width))
    rows, columns = np.arange(height)[:, None] + down, np.arange(width) + right
    source = np.where(inside, np.clip(rows, 0, height - 1) * width + np.clip(columns, 0, width - 1), pixel).ravel()
    taken = (source > pixel.ravel()) & inside.ravel()[source]  # that one had taken another colour before
    while taken.any():
        source, taken = np.where(taken, source[source], source), taken & taken[source]
    return source


def motion_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """A half Gaussian along a line, as of a camera that moves."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    scale = scale_of(image)
    return along_a_line(image, radius * scale, sigma * scale, float(rng.uniform(-45, 45)))


def along_a_line(image: Image, radius: float, sigma: float, degrees: float) -> Image:
    """ImageMagick's motion blur: a half Gaussian, cut at 2 * radius, over the pixels nearest to a line.

    Args:
        image: float32 [H, W] or [H, W, 3].
        radius, sigma: pixels.
        degrees: of the line; 0 runs to the right.
    """
    along = np.arange(2 * round(radius) + 1)
    weights = np.exp(-(along**2) / (2 * sigma**2)).astype(np.float32)
    angle = math.radians(degrees)
    right, down = (np.ceil(along * part - 0.5).astype(int) for part in (math.cos(angle), math.sin(angle)))
    kernel = np.zeros((np.ptp(down) + 1, np.ptp(right) + 1), np.float32)
    np.add.at(kernel, (down - down.min(), right - right.min()), weights / weights.sum())
    anchor = (int(-right.min()), int(-down.min()))
    blurred: Image = cv2.filter2D(image, -1, kernel, anchor=anchor, borderType=cv2.BORDER_REPLICATE)
    return blurred


def zoom_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """The mean of the image and of zooms of it, as of a camera that moves forward."""
    most, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity - 1]
    zooms = np.arange(1, most, step)
    total = image.copy()
    for zoom in zooms.tolist():
        total += zoomed(image, zoom)
    return total / np.float32(len(zooms) + 1)


def zoomed(image: Image, zoom: float) -> Image:
    """The middle of the image, enlarged to its size by linear interpolation.

    Args:
        image: float32 [H, W] or [H, W, 3].
        zoom: 1 and up.
    """
    height, width = image.shape[:2]
    rows, columns = math.ceil(height / zoom), math.ceil(width / zoom)
    # The middle crop of rows x columns becomes round(rows * zoom) x round(columns * zoom), corner on corner; of that
    # the middle again.
    vertical, top = _line(height, rows, zoom)
    horizontal, left = _line(width, columns, zoom)
    matrix = np.array([[horizontal, 0, left], [0, vertical, top]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    larger: Image = cv2.warpAffine(image, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return larger


def _line(side: int, kept: int, zoom: float) -> tuple[float, float]:
    """Source place = slope * place + offset, along one side."""
    enlarged = round(kept * zoom)
    slope = (kept - 1) / max(enlarged - 1, 1)
    return slope, (side - kept) // 2 + slope * ((enlarged - side) // 2)

"""What cameras and files do. Each takes an image, float32 [H, W, 3] in 0..1, a severity 1..5 and a generator."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image as Picture
from PIL.Image import Resampling

from buttress.metrics.corruptions.blur import SIDE, fitted, scale_of, sides_at_224, smooth
from buttress.metrics.corruptions.noise import Image


def brightness(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """More of HSV's value, hue and saturation kept."""
    value = image.max(axis=2, keepdims=True)
    brighter = np.minimum(value + np.float32(0.1 * severity), 1)
    lighter: Image = np.where(value > 0, image * (brighter / np.maximum(value, 1e-6)), brighter)
    return lighter


def saturate(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """HSV's saturation times and plus something; grey, which has no hue, is taken for red."""
    times, plus = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    value = image.max(axis=2, keepdims=True)
    chroma = value - image.min(axis=2, keepdims=True)
    saturation = chroma / np.maximum(value, 1e-6)
    wanted = np.clip(saturation * np.float32(times) + np.float32(plus), 0, 1)
    coloured = value - (value - image) * (wanted / np.maximum(saturation, 1e-6))
    red = value * (1 - wanted * np.array((0, 1, 1), np.float32))
    saturated: Image = np.where(chroma > 0, coloured, red)
    return saturated


def contrast(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Nearer to each channel's mean."""
    kept = np.float32((0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1])
    means = image.mean(axis=(0, 1), keepdims=True)
    flatter: Image = (image - means) * kept + means
    return flatter


def jpeg_compression(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """JPEG of a low quality, colours at half the resolution."""
    quality = (25, 18, 15, 10, 7)[severity - 1]
    pixels = np.rint(image * 255).astype(np.uint8)[..., ::-1]
    _, file = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    return decoded / np.float32(255)


def pixelate(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Fewer pixels, each a square."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[:2]
    fewer = (max(int(width * share), 1), max(int(height * share), 1))
    small = Picture.fromarray(np.rint(image * 255).astype(np.uint8)).resize(fewer, Resampling.BOX)
    return np.asarray(small.resize((width, height), Resampling.BOX)) / np.float32(255)


def elastic_transform(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """A random affine map, and a smooth field of shifts (Simard et al. 2003)."""
    strength, sigma, corner = (
        (244 * 2, 244 * 0.7, 244 * 0.1),  # 244, not 224: as the benchmark has it
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    )[severity - 1]
    scale = scale_of(image)
    height, width = image.shape[:2]
    centre, square = np.array((height, width), np.float32) // 2, min(height, width) // 3
    corners = centre + np.array([(square, square), (square, -square), (-square, -square)], np.float32)
    moved = corners + rng.uniform(-corner * scale, corner * scale, corners.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(corners, moved)
    turned = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    fields = [_field(*sides_at_224(image), sigma, rng) for _ in range(2)]
    right, down = (np.float32(strength * scale) * fitted(field, image) for field in fields)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    shifted: Image = cv2.remap(turned, columns + right, rows + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return shifted


def _field(height: int, width: int, sigma: float, rng: np.random.Generator) -> Image:
    """Even noise in -1..1, blurred, float32 [H, W]; a wide blur is done on cosines, at one cost for all widths."""
    noise = 2 * rng.random((height + height % 2, width + width % 2), np.float32) - 1
    if sigma < 0.05 * SIDE:
        return smooth(noise, sigma, cv2.BORDER_REFLECT, truncate=3)[:height, :width]
    waves = cv2.dct(noise)
    for axis, side in enumerate(noise.shape):
        damping = np.exp(-((np.pi * sigma / side * np.arange(side)) ** 2) / 2).astype(np.float32)
        waves *= damping[:, None] if axis == 0 else damping
    field: Image = cv2.idct(waves)
    return field[:height, :width]

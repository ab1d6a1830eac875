"""The colour ops of RandAugment on uint8 RGB: point-wise ops as one table look-up, the others as one OpenCV call each.

Agrees with torchvision's functional ops to 2 grey levels. Consecutive point-wise ops are composed into one table; an op
that needs the image's statistics or its neighbours applies what has gathered first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [H, W, 3]
Table = NDArray[np.uint8]  # [256], or [256, 3] for one per channel

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SMOOTH_3x3 = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13.0  # Pillow's SMOOTH


def apply_colour(image_HWC: Pixels, ops: Iterable[tuple[str, float]]) -> Pixels:
    """The image after `ops` in their order; names that are no colour op are passed over. May write into `image_HWC`."""
    table: Table | None = None
    for name, value in ops:
        if name in POINTWISE:
            step = POINTWISE[name](value)
            table = step if table is None else step[table]
        elif name in STATISTICAL:
            image_HWC, table = _looked_up(image_HWC, table), None
            table = STATISTICAL[name](image_HWC, value)
        elif name in SPATIAL:
            image_HWC, table = SPATIAL[name](_looked_up(image_HWC, table), value), None
    return _looked_up(image_HWC, table)


def _looked_up(image_HWC: Pixels, table: Table | None) -> Pixels:
    if table is None:
        return image_HWC
    shape = (256,) if table.ndim == 1 else (1, 256, 3)
    cv2.LUT(image_HWC, table.reshape(shape), dst=image_HWC)
    return image_HWC


def _table(values: NDArray[np.float64]) -> Table:
    """Nearest grey level, halves up, kept in 0..255."""
    table = np.floor(np.clip(values, 0.0, 255.0) + 0.5).astype(np.uint8)
    table.flags.writeable = False
    return table


LEVELS = np.arange(256, dtype=np.float64)


@lru_cache(maxsize=256)
def _brightness(value: float) -> Table:
    return _table(LEVELS * (1.0 + value))


@lru_cache(maxsize=256)
def _posterize(bits: float) -> Table:
    kept = int(bits)
    return _table((LEVELS.astype(np.int64) >> (8 - kept) << (8 - kept)).astype(np.float64))


@lru_cache(maxsize=256)
def _solarize(threshold: float) -> Table:
    return _table(np.where(threshold <= LEVELS, 255.0 - LEVELS, LEVELS))


def _contrast(image_HWC: Pixels, value: float) -> Table:
    """Blend with the image's mean luma."""
    mean = sum(weight * channel for weight, channel in zip(LUMA, cv2.mean(image_HWC), strict=False))
    return _table(LEVELS * (1.0 + value) - mean * value)


def _autocontrast(image_HWC: Pixels, value: float) -> Table:
    """Each channel stretched to 0..255; one of a single level stays."""
    # Along whole rows first: NumPy vectorises that, and not an axis of three.
    rows = image_HWC.reshape(len(image_HWC), -1)
    low, high = rows.min(0).reshape(-1, 3).min(0), rows.max(0).reshape(-1, 3).max(0)
    span = (high - low).astype(np.float64)
    flat = span == 0
    scale = 255.0 / np.where(flat, 1.0, span)
    stretched = np.floor((LEVELS[:, None] - low) * scale + 1e-6)
    return _table(np.where(flat, LEVELS[:, None], stretched))


def _equalize(image_HWC: Pixels, value: float) -> Table:
    """Each channel's histogram flattened as Pillow does it: in integers, the last occupied level set aside."""
    return np.stack([_equalized(image_HWC, channel) for channel in range(3)], axis=1)


def _equalized(image_HWC: Pixels, channel: int) -> Table:
    counts = cv2.calcHist([image_HWC], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
    step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
    if step == 0:
        return LEVELS.astype(np.uint8)
    before = np.concatenate(([0], counts.cumsum()[:-1]))
    table: Table = np.minimum((before + step // 2) // step, 255).astype(np.uint8)
    return table


def _color(image_HWC: Pixels, value: float) -> Pixels:
    """Blend with the luma of each pixel: one 3x3 matrix."""
    luma_33 = np.tile(LUMA, (3, 1))
    return cv2.transform(image_HWC, np.eye(3) * (1.0 + value) - luma_33 * value).astype(np.uint8, copy=False)


def _sharpness(image_HWC: Pixels, value: float) -> Pixels:
    """Blend with a 3x3 smoothing; the outermost pixels stay."""
    if min(image_HWC.shape[:2]) < 3:
        return image_HWC
    kernel = -value * SMOOTH_3x3
    kernel[1, 1] += 1.0 + value
    result = cv2.filter2D(image_HWC, -1, kernel).astype(np.uint8, copy=False)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        result[edge] = image_HWC[edge]
    return result


POINTWISE: dict[str, Callable[[float], Table]] = {
    "Brightness": _brightness,
    "Posterize": _posterize,
    "Solarize": _solarize,
}
STATISTICAL: dict[str, Callable[[Pixels, float], Table]] = {
    "Contrast": _contrast,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
SPATIAL: dict[str, Callable[[Pixels, float], Pixels]] = {"Color": _color, "Sharpness": _sharpness}

"""A box of an image brought to a size: the fast rule for training and antialiased filters for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray

from buttress.sources.tiles import Tiles
from buttress.views.draw import Box
from buttress.views.policy import Filter

Pixels = NDArray[np.uint8]  # [H, W, 3]
Size = tuple[int, int]  # width, height

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # half width of Pillow's filters where nothing shrinks
INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


def size_of(image_HWC: Pixels) -> Size:
    """(width, height)."""
    return image_HWC.shape[1], image_HWC.shape[0]


def cut(image_HWC: Pixels | Tiles, box: Box) -> Pixels:
    """The pixels of a box: its edges rounded to whole pixels (halves up), at least one, black beyond the image.

    Of tiles, those that are needed are decoded; of pixels it is a view.
    """
    width, height = image_HWC.size if isinstance(image_HWC, Tiles) else size_of(image_HWC)
    x0, x1 = _edges(box[0], box[2], width)
    y0, y1 = _edges(box[1], box[3], height)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if isinstance(image_HWC, Tiles):
        inside = image_HWC.pixels(left, top, right, bottom)
    else:
        inside = image_HWC[top:bottom, left:right]
    beyond = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
    if any(beyond):
        return cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_CONSTANT).astype(np.uint8, copy=False)
    return inside


def pixels_of(box: Box, size: tuple[int, int]) -> int:
    """How many pixels of an image of `size` (height, width) a box shows that lies inside it, as `cut` cuts it."""
    (y0, y1), (x0, x1) = _edges(box[1], box[3], size[0]), _edges(box[0], box[2], size[1])
    return (y1 - y0) * (x1 - x0)


def _edges(start: float, length: float, side: int) -> tuple[int, int]:
    low, high = floor(start * side + 0.5), floor((start + length) * side + 0.5)
    if high <= low:
        low = min(low, side - 1)
        high = low + 1
    return low, high


def resize_into(source_HWC: Pixels, out_HWC: Pixels, area_from: int = 2) -> None:
    """The training rule: linear; where a side shrinks `area_from`-fold or more, shrinking sides are averaged first."""
    width, height = size_of(out_HWC)
    source_width, source_height = size_of(source_HWC)
    if source_width >= area_from * width or source_height >= area_from * height:
        shrunk = min(source_width, width), min(source_height, height)
        if shrunk == (width, height):
            cv2.resize(source_HWC, shrunk, dst=out_HWC, interpolation=cv2.INTER_AREA)
            return
        # OpenCV averages only where both sides shrink; the side that grows is left to the linear step.
        source_HWC = cv2.resize(source_HWC, shrunk, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    cv2.resize(source_HWC, (width, height), dst=out_HWC, interpolation=cv2.INTER_LINEAR)


def resize_antialiased(image_HWC: Pixels, box: Box, out_HWC: Pixels, kind: Filter) -> None:
    """The evaluation resize. "area" averages whole pixels; the others follow Pillow's antialiased filters closely.

    The filter, stretched by the shrink of each side, is applied at whole source pixels, and its result sampled at the
    fractional places of the output by the filter's own interpolation (mean difference from Pillow under 1 level).
    """
    if kind == "area":
        resize_into(cut(image_HWC, box), out_HWC, area_from=1)
        return
    (width, height), (image_width, image_height) = size_of(out_HWC), size_of(image_HWC)
    x = _Span.of(box[0] * image_width, box[2] * image_width, image_width, width, SUPPORT[kind])
    y = _Span.of(box[1] * image_height, box[3] * image_height, image_height, height, SUPPORT[kind])
    region_HWC = image_HWC[y.first : y.last, x.first : x.last]
    if x.pixels < x.last - x.first or y.pixels < y.last - y.first:
        region_HWC = cv2.resize(region_HWC, (x.pixels, y.pixels), interpolation=cv2.INTER_AREA).astype(np.uint8)
    kernels = _kernel(kind, max(x.step, 1.0)), _kernel(kind, max(y.step, 1.0))
    smooth_HWC = cv2.sepFilter2D(region_HWC, cv2.CV_32F, *kernels, borderType=cv2.BORDER_REPLICATE)
    matrix = np.array([[x.step, 0.0, x.start], [0.0, y.step, y.start]])
    flags = INTERPOLATION[kind] | cv2.WARP_INVERSE_MAP
    sampled = cv2.warpAffine(smooth_HWC, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    np.copyto(out_HWC, np.clip(np.rint(sampled), 0, 255), casting="unsafe")


@dataclass(frozen=True)
class _Span:
    """One side of an antialiased resize: source pixels first..last, averaged down to `pixels`, then sampled."""

    first: int
    last: int
    pixels: int
    step: float  # averaged pixels per output pixel
    start: float  # index of the averaged pixel at the centre of output pixel 0

    @staticmethod
    def of(start: float, length: float, side: int, count: int, support: float) -> _Span:
        """The span of `length` pixels from `start` of an image `side` pixels long, for `count` output pixels."""
        shrink = length / count
        margin = ceil(support * max(shrink, 1.0)) + 2
        first, last = max(floor(start) - margin, 0), min(ceil(start + length) + margin, side)
        # A whole-number average before a shrink of 4x or more keeps the filter short and leaves it at least 2x to do.
        pixels = max((last - first) // max(int(shrink / 2.0), 1), 1)
        scale = pixels / (last - first)
        step = shrink * scale
        return _Span(first, last, pixels, step, (start - first) * scale + step / 2.0 - 0.5)


@lru_cache(maxsize=256)
def _kernel(kind: Filter, stretch: float) -> NDArray[np.float64]:
    """Pillow's filter, stretched, at whole pixels; sums to 1."""
    reach = ceil(SUPPORT[kind] * stretch) - 1
    x = np.abs(np.arange(-reach, reach + 1) / stretch)
    if kind == "bilinear":
        weights = 1.0 - x
    else:  # Keys' cubic with a = -0.5
        weights = np.where(x < 1.0, (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0)
    normed: NDArray[np.float64] = weights / weights.sum()
    return normed

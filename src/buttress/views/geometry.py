"""Flip and the geometric ops of RandAugment as one affine map on the unit square.

A map takes a point of the view (x right, y down, both 0..1) to the point of the crop that it shows. Working on the unit
square keeps the map free of the output's size; on a square output the ops are those of torchvision.
"""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray

from buttress.views.draw import ViewParameters

Affine = tuple[float, float, float, float, float, float]  # x' = a x + b y + c, y' = d x + e y + f

IDENTITY: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
FLIP: Affine = (-1.0, 0.0, 1.0, 0.0, 1.0, 0.0)
GEOMETRIC_OPS = frozenset({"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"})


def is_warped(parameters: ViewParameters) -> bool:
    """Whether a geometric op of RandAugment was drawn."""
    return any(name in GEOMETRIC_OPS for name, _ in parameters.augment)


def view_to_crop(parameters: ViewParameters) -> Affine:
    """The composed map of flip and all geometric ops, in the order drawn."""
    composed = FLIP if parameters.flip else IDENTITY
    for name, value in parameters.augment:
        if name in GEOMETRIC_OPS:
            composed = _compose(composed, _inverse(name, value))
    return composed


def pixel_matrix(affine: Affine, view_size: tuple[int, int], crop_size: tuple[int, int]) -> NDArray[np.float64]:
    """The 2x3 matrix from pixel indices of the view to pixel indices of the crop, sizes as (width, height).

    Pixel i of n covers i/n..(i+1)/n of the unit square and is sampled at its centre.
    """
    a, b, c, d, e, f = affine
    (view_width, view_height), (crop_width, crop_height) = view_size, crop_size
    to_crop = []
    for (along_x, along_y, shift), side in (((a, b, c), crop_width), ((d, e, f), crop_height)):
        step_x, step_y = along_x * side / view_width, along_y * side / view_height
        to_crop.append((step_x, step_y, (step_x + step_y) / 2.0 + shift * side - 0.5))
    return np.array(to_crop)


def _compose(outer: Affine, inner: Affine) -> Affine:
    """The map that applies `inner`, then `outer`."""
    a, b, c, d, e, f = outer
    p, q, r, s, t, u = inner
    return a * p + b * s, a * q + b * t, a * r + b * u + c, d * p + e * s, d * q + e * t, d * r + e * u + f


def _inverse(name: str, value: float) -> Affine:
    """Where a point of the op's result comes from. Shears hold the top left corner, rotations the centre."""
    if name == "ShearX":
        return 1.0, value, 0.0, 0.0, 1.0, 0.0
    if name == "ShearY":
        return 1.0, 0.0, 0.0, value, 1.0, 0.0
    if name == "TranslateX":
        return 1.0, 0.0, -value, 0.0, 1.0, 0.0
    if name == "TranslateY":
        return 1.0, 0.0, 0.0, 0.0, 1.0, -value
    turn_cos, turn_sin = cos(radians(value)), sin(radians(value))
    shift_x, shift_y = (1.0 - turn_cos + turn_sin) / 2.0, (1.0 - turn_cos - turn_sin) / 2.0
    return turn_cos, -turn_sin, shift_x, turn_sin, turn_cos, shift_y

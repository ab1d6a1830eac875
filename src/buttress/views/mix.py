"""Two finished views of one size become one: MixUp, then CutMix, in integers, the same on every machine."""

from __future__ import annotations

from math import floor

import numpy as np
from numpy.typing import NDArray

from buttress.views.draw import Mix
from buttress.views.resample import cut, pixels_of

WEIGHT_BITS = 16


def mix_into(own_HWC: NDArray[np.uint8], partner_HWC: NDArray[np.uint8], mix: Mix) -> None:
    """Mix a partner's view into the own one, in place.

    Args:
        own_HWC: uint8 [H, W, 3], the own view, all but mixed.
        partner_HWC: uint8 [H, W, 3], the partner's view of the same number, not mixed; left untouched.
        mix: how.
    """
    assert own_HWC.shape == partner_HWC.shape, (own_HWC.shape, partner_HWC.shape)
    if mix.mixup < 1.0:
        _lay_over(own_HWC, partner_HWC, mix.mixup)
    if mix.cutmix is not None:
        cut(own_HWC, mix.cutmix)[:] = cut(partner_HWC, mix.cutmix)


def own_share(mix: Mix, size: tuple[int, int]) -> float:
    """Share of a view of `size` (height, width), 0..1, that is the own image's: by the pixels that CutMix really shows.

    So the mean over the pixels is what the labels are mixed by (Yun et al. 2019, CutMix, arXiv 1905.04899, section 3.2
    and its code, which takes the share of the box after it is rounded and clipped).
    """
    if mix.cutmix is None:
        return mix.mixup
    return mix.mixup * (1.0 - pixels_of(mix.cutmix, size) / (size[0] * size[1]))


def _lay_over(own_HWC: NDArray[np.uint8], partner_HWC: NDArray[np.uint8], weight: float) -> None:
    """(w own + (1 - w) partner), w in whole 65,536ths, rounded to the nearest level, halves up."""
    share = floor(weight * 2.0**WEIGHT_BITS + 0.5)
    difference_HWC = np.subtract(own_HWC, partner_HWC, dtype=np.int32)
    difference_HWC *= share
    difference_HWC += 1 << WEIGHT_BITS - 1
    difference_HWC >>= WEIGHT_BITS  # floors, negative ones too
    np.add(difference_HWC, partner_HWC, out=own_HWC, casting="unsafe")

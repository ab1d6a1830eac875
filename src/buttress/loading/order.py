"""Which sample comes when, and in which view: pure functions of (seed, epoch). No torch.

Both come from raw Philox words (views/keys.py), so the order is the same on every machine and NumPy version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from buttress.views.keys import words

ORDER_SLOT = 1  # slots below 256 belong to no op of a policy
VIEW_SLOT = 2
_DOMAIN = 0x6F726465722E7631  # stands where a view's key has the sample's id hash


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` samples in `epoch`: a permutation `[count]`, by sorting raw words."""
    return np.argsort(words(seed, epoch, _DOMAIN, ORDER_SLOT, count), kind="stable")


def view_of_epoch(seed: int, epoch: int, views: int) -> int:
    """The view number, 0..views-1, that every sample takes in `epoch`; each once in any round of `views`."""
    order = np.argsort(words(seed, epoch // views, _DOMAIN, VIEW_SLOT, views), kind="stable")
    return int(order[epoch % views])

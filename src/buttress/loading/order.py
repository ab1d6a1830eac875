"""Which sample comes when, and in which view: pure functions of (seed, epoch). No torch.

Both come from raw Philox words (views/keys.py), so the order is the same on every machine and NumPy version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from buttress.views.keys import words

ORDER_SLOT = 1  # slots below 256 belong to no op of a policy
VIEW_SLOT = 2
CHUNK_SLOT = 3
_DOMAIN = 0x6F726465722E7631  # stands where a view's key has the sample's id hash


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` samples in `epoch`: a permutation `[count]`, by sorting raw words."""
    return np.argsort(words(seed, epoch, _DOMAIN, ORDER_SLOT, count), kind="stable")


def chunked_order(seed: int, epoch: int, chunk_of: NDArray[np.int32], window: int) -> NDArray[np.int64]:
    """An order for sources where reading at random is costly: chunks are shuffled, then samples within windows of them.

    All samples of the first `window` chunks come, mixed, before any of the next `window`: a reader that keeps as many
    chunks at hand reads each once an epoch. Where there is one window alone, this is `epoch_order`.

    Args:
        seed, epoch: as in `epoch_order`.
        chunk_of: the chunk's number for every sample [N], any integers.
        window: chunks, 1 and up.

    Returns: a permutation [N].
    """
    chunks, place_N = np.unique(chunk_of, return_inverse=True)
    order = np.argsort(words(seed, epoch, _DOMAIN, CHUNK_SLOT, len(chunks)), kind="stable")
    window_of_chunk = np.empty(len(chunks), np.int64)
    window_of_chunk[order] = np.arange(len(chunks)) // window
    # the last key leads; ties keep their order
    return np.lexsort((words(seed, epoch, _DOMAIN, ORDER_SLOT, len(chunk_of)), window_of_chunk[place_N]))


def view_of_epoch(seed: int, epoch: int, views: int) -> int:
    """The view number, 0..views-1, that every sample takes in `epoch`; each once in any round of `views`."""
    order = np.argsort(words(seed, epoch // views, _DOMAIN, VIEW_SLOT, views), kind="stable")
    return int(order[epoch % views])

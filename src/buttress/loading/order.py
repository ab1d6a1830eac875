"""Which sample comes when, and in which view: pure functions of (seed, epoch). No torch.

Both come from raw Philox words (views/keys.py) and integer arithmetic, so the order is the same on every machine and
NumPy version. Shapes: N samples of an epoch, P positions asked for.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from buttress.views.keys import words

ORDER_SLOT = 1  # slots below 256 belong to no op of a policy
VIEW_SLOT = 2
CHUNK_SLOT = 3
KEY_SLOT = 4
DELAY_SLOT = 5
_DOMAIN = 0x6F726465722E7631  # stands where a view's key has the sample's id hash

SORTED = 1 << 16  # up to so many samples are sorted by raw words, half a megabyte; more go through a bijection
_ROUNDS = 8


class Order(Protocol):
    """The order of an epoch, any part of it at a time."""

    def __len__(self) -> int: ...
    def take(self, positions_P: NDArray[np.int64]) -> NDArray[np.int64]: ...


class EpochOrder:
    """The order of `count` samples in `epoch`, in memory that does not grow with them.

    Args:
        seed, epoch: the order is a pure function of both.
        count: N, 1 and up.
    """

    def __init__(self, seed: int, epoch: int, count: int) -> None:
        self.count = count
        self._sorted: NDArray[np.int64] | None = None
        if count <= SORTED:
            self._sorted = np.argsort(words(seed, epoch, _DOMAIN, ORDER_SLOT, count), kind="stable")
        else:
            self._shuffled = Bijection(words(seed, epoch, _DOMAIN, KEY_SLOT, _ROUNDS), count)

    def __len__(self) -> int:
        return self.count

    def at(self, first: int, stop: int) -> NDArray[np.int64]:
        """The samples, 0..N-1, at positions `first`..`stop` - 1 (at most N), `[stop - first]`."""
        return self.take(np.arange(first, min(stop, self.count)))

    def take(self, positions_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples, 0..N-1, at positions 0..N-1, `[P]`."""
        if self._sorted is not None:
            return self._sorted[positions_P]
        return self._shuffled(positions_P.astype(np.uint64)).astype(np.int64)


class Bijection:
    """A keyed permutation of 0..count-1, evaluated where it is asked.

    A Feistel network over the next power of two, its halves in turn; what falls outside is sent through again until it
    falls inside (cycle walking, Black & Rogaway 2002), twice on average at worst. Rounds mix by SplitMix64's finaliser.

    Args:
        keys: uint64, one per round.
        count: 1..2**62.
    """

    def __init__(self, keys: NDArray[np.uint64], count: int) -> None:
        bits = max(count - 1, 1).bit_length()
        self.keys, self.count = keys, count
        self._low = np.uint64(bits // 2)
        self._low_mask, self._high_mask = (np.uint64((1 << width) - 1) for width in (bits // 2, bits - bits // 2))

    def __call__(self, positions_P: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Images of `positions_P`, each 0..count-1."""
        values_P = self._rounds(positions_P)
        while len(outside := np.flatnonzero(values_P >= self.count)):
            values_P[outside] = self._rounds(values_P[outside])
        return values_P

    def _rounds(self, values_P: NDArray[np.uint64]) -> NDArray[np.uint64]:
        high_P, low_P = values_P >> self._low, values_P & self._low_mask
        for number, key in enumerate(self.keys):
            if number % 2:
                low_P = low_P ^ (_mixed(high_P + key) & self._low_mask)
            else:
                high_P = high_P ^ (_mixed(low_P + key) & self._high_mask)
        return (high_P << self._low) | low_P


def _mixed(values_P: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al., "Fast splittable pseudorandom number generators", 2014), modulo 2^64."""
    values_P = (values_P ^ (values_P >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values_P = (values_P ^ (values_P >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values_P ^ (values_P >> np.uint64(31))


class ListedOrder:
    """An order that is held in memory, `[N]`."""

    def __init__(self, places: NDArray[np.int64]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def take(self, positions_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples at these positions."""
        return self.places[positions_P]


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The whole order of `count` samples in `epoch`: a permutation `[count]`."""
    return EpochOrder(seed, epoch, count).at(0, count)


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


def delays(seed: int, views: int, batch: int, apart: int) -> NDArray[np.int64]:
    """After how many groups a sample comes again, `[views, batch]`, by the view and by the slot of a batch that it has.

    View 0 at once; view v after v * `apart`, give or take half of that as drawn for every slot: never fewer than the
    view that goes before it.
    """
    drawn_VB = [words(seed, view, _DOMAIN, DELAY_SLOT, batch) % np.uint64(apart + 1) for view in range(views)]
    delay_VB = np.arange(views)[:, None] * apart - apart // 2 + np.array(drawn_VB).astype(np.int64)
    delay_VB[0] = 0
    return delay_VB

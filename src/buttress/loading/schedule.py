"""Which samples the batches of a training are of, in which view, in which order. No torch.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buttress.loading.order import EpochOrder, ListedOrder, Order, chunked_order
from buttress.sources import Chunks

MOST_HELD = 2 << 30  # bytes, over all processes: a number of the product and no setting, as the order hangs on it

Request = tuple[range, NDArray[np.int64]]  # epochs, of each of which a batch is made; places in the source
Place = tuple[int, int]  # a group of samples, counted over the training, and which of its views


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which slice of every global batch is this process's: the `rank`-th of `world` (rank 0..world-1)."""

    rank: int = 0
    world: int = 1

    def of(self, first: int, stop: int) -> tuple[int, int]:
        """Its part of the positions `first`..`stop` - 1; the parts are neighbours and differ by one at most."""
        count = stop - first
        return first + self.rank * count // self.world, first + (self.rank + 1) * count // self.world


WHOLE = Share()


class Schedule:
    """The batches of the current epoch from a step on, and what has to be decoded for them.

    A group is the samples of a batch, in the order of a pass over all of them; the groups of all passes are counted on.
    With n views per decode a pass is for n epochs, and a group has a batch in the view of each of them. These lie
    `apart` groups from one another, as in a delay line: of n batches on end one is of a new group, one of the group
    `apart` earlier, and so on, so that samples are asked for at an even pace. Where all views of a pass can be held,
    every epoch shows as many samples as there are, a part of them from the pass before; else as many as memory allows
    lie between two views of one. The line is full from the first step on: it begins with later views of the first
    groups.

    Args:
        usable: the samples.
        batch: samples a group, over all processes.
        seed: of the order.
        shuffle: false = as they come.
        share: which slice of every group is this process's.
        chunks: of the source; where it has some they are shuffled, then the samples near one another.
        views: n.
        view_bytes: of a sample that is held, each view.
    """

    def __init__(
        self,
        usable: NDArray[np.int64],
        batch: int,
        seed: int,
        shuffle: bool,
        share: Share,
        chunks: Chunks | None = None,
        views: int = 1,
        view_bytes: int = 1,
    ) -> None:
        self.usable, self.batch, self.seed, self.shuffle, self.share = usable, batch, seed, shuffle, share
        self.chunks = None if chunks is None else chunks.chosen(usable)
        self.views = views
        held_of_one_apart = batch * view_bytes * views * (views - 1) // 2
        self.apart = min(self.steps // views, max(MOST_HELD // held_of_one_apart, 1)) if views > 1 else 0
        self.epoch, self.first_step = 0, 0
        self.groups_held: frozenset[int] = frozenset()

    @property
    def steps(self) -> int:
        """Of an epoch."""
        whole, left = divmod(len(self.usable), self.batch)
        return whole + (left > 0) * (not self.shuffle or whole == 0)

    @property
    def times(self) -> range:
        """The batches that are left of the epoch, counted over the training."""
        return range(self.epoch * self.steps + self.first_step, (self.epoch + 1) * self.steps)

    def place(self, time: int) -> Place:
        """What the batch is of."""
        turn, view = divmod(time, self.views)
        return turn + (self.views - 1 - view) * self.apart, view

    def __iter__(self) -> Iterator[Request]:
        """What has to be made for these batches: each group once, with those of its views that are yet to be shown."""
        asked, orders = set(self.groups_held), dict[int, Order | None]()
        for time in self.times:
            group, view = self.place(time)
            if group in asked:
                continue
            asked.add(group)
            number, position = divmod(group, self.steps)
            if number not in orders:
                orders[number] = self._order(number)
            order = orders[number]
            first, stop = self.share.of(position * self.batch, min((position + 1) * self.batch, len(self.usable)))
            indices = self.usable[slice(first, stop) if order is None else order.at(first, stop)]
            yield range(number * self.views + view, (number + 1) * self.views), indices

    def _order(self, number: int) -> Order | None:
        """Of a pass; None = as they come."""
        if not self.shuffle:
            return None
        if self.chunks is not None:
            return ListedOrder(chunked_order(self.seed, number, self.chunks.of, self.chunks.window))
        return EpochOrder(self.seed, number, len(self.usable))

"""Which samples the batches of a training are of, in which view, in which order. No torch.

Shapes: N samples, V views of a decode, B samples of a batch over all processes, M samples in views that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buttress.loading.order import EpochOrder, ListedOrder, Order, chunked_order, delays
from buttress.sources import Chunks

MOST_HELD = 2 << 30  # bytes, over all processes: a number of the product and no setting, as the order hangs on it


@dataclass(frozen=True, slots=True)
class Request:
    """Samples that have to be made. Views of one sample stand beside one another.

    Args:
        index_M: places in the source. epoch_M: whose view of each.
        time_M: of which batch it is, counted over the training. slot_M: its place there.
        whole: whether they are one batch, all of it.
    """

    index_M: NDArray[np.int64]
    epoch_M: NDArray[np.int64]
    time_M: NDArray[np.int64]
    slot_M: NDArray[np.int64]
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which slice of every global batch is this process's: the `rank`-th of `world` (rank 0..world-1)."""

    rank: int = 0
    world: int = 1

    def of(self, count: int) -> NDArray[np.int64]:
        """Its part of 0..`count` - 1; the parts are neighbours and differ by one at most."""
        return np.arange(self.rank * count // self.world, (self.rank + 1) * count // self.world)


WHOLE = Share()


class Schedule:
    """The batches of the current epoch from a step on, and what has to be made for them.

    A group is the samples of B places on end, in the order of a pass over all of them; the groups of all passes are
    counted on. With one view per decode, an epoch is a pass and a batch a group.

    With V views per decode a pass is for V epochs. Of V batches on end the first is of new samples, the others are of
    samples that were decoded before: each slot of a batch is a delay line, from which a sample comes again in its next
    view after about `apart` times V batches. How long exactly differs from slot to slot, so that the samples of a group
    part company. New samples are asked for at an even pace. Where memory holds all views of a pass, the views of a
    sample are an epoch apart, as they would be with one per decode; else as far as it allows. The lines are full from
    the first step on: a training begins with later views of the first groups.

    Args:
        usable: the samples.
        batch: B.
        seed: of the order.
        shuffle: false = as they come.
        share: which slice of every batch is this process's.
        chunks: of the source; where it has some they are shuffled, then the samples near one another.
        views: V.
        view_bytes: of a sample that is held, each view.

    Raises: ValueError for several views of samples as they come.

    Attributes:
        begun: since which batch, counted over the training, made samples are held; what was made before it is gone.
    """

    def __init__(
        self,
        usable: NDArray[np.int64],
        batch: int,
        seed: int,
        shuffle: bool,
        share: Share,
        chunks: Chunks | None = None,
        *,
        views: int = 1,
        view_bytes: int,
    ) -> None:
        if views > 1 and not shuffle:
            raise ValueError("samples come as they are in one view each")
        self.usable, self.batch, self.seed, self.shuffle, self.share = usable, batch, seed, shuffle, share
        self.chunks = None if chunks is None else chunks.chosen(usable)
        self.views = views
        self.apart = apart(self.steps, views, batch * view_bytes)
        self.group_bytes = batch * view_bytes
        self.most_held = held_groups(self.apart, views) * self.group_bytes
        self._delay_VB = delays(seed, views, batch, self.apart)
        self.epoch, self.first_step, self.begun = 0, 0, 0

    @property
    def steps(self) -> int:
        """Of an epoch."""
        whole, left = divmod(len(self.usable), self.batch)
        return whole + (left > 0) * (not self.shuffle or whole == 0)

    @property
    def times(self) -> range:
        """The batches that are left of the epoch, counted over the training."""
        return range(self.epoch * self.steps + self.first_step, (self.epoch + 1) * self.steps)

    def asks(self, time: int) -> bool:
        """Whether there is a request for this batch: not where all of its samples have been made for one before."""
        return bool(self._new(time).any())

    def __iter__(self) -> Iterator[Request]:
        """What has to be made for these batches, in their order: of each sample the views that are yet to be shown."""
        orders = dict[int, Order | None]()
        for time in self.times:
            if not self.asks(time):
                continue
            turn, view = divmod(time, self.views)
            later = np.arange(view, self.views)
            slots = self._slots(time)
            slots = slots[self._new(time)[slots]]
            number_B, place_B = np.divmod(turn + self._longest - self._delay_VB[view, slots], self.steps)
            index_B = np.empty(len(slots), np.int64)
            for number in np.unique(number_B).tolist():
                if number not in orders:
                    orders[number] = self._order(number)
                order, those = orders[number], number_B == number
                positions = place_B[those] * self.batch + slots[those]
                index_B[those] = self.usable[positions if order is None else order.take(positions)]
            waits_BV = self.views * (self._delay_VB[later] - self._delay_VB[view])[:, slots].T
            yield Request(
                np.repeat(index_B, len(later)),
                (number_B[:, None] * self.views + later).ravel(),
                (time + waits_BV + later - view).ravel(),
                np.repeat(slots, len(later)),
                self.views == 1,
            )

    @property
    def _longest(self) -> int:
        return int(self._delay_VB.max())

    def _slots(self, time: int) -> NDArray[np.int64]:
        """This process's: the last batch of an evaluation has fewer, and so has that of fewer samples than a batch."""
        position = time // self.views % self.steps
        return self.share.of(min(self.batch, len(self.usable) - position * self.batch))

    def _new(self, time: int) -> NDArray[np.bool_]:
        """Which slots have samples that were not made before: in their first view, or last shown before `begun`."""
        view = time % self.views
        if view == 0:
            return np.ones(self.batch, np.bool_)
        waited_B = self.views * (self._delay_VB[view] - self._delay_VB[view - 1]) + 1
        new_B: NDArray[np.bool_] = time - waited_B < self.begun
        return new_B

    def _order(self, number: int) -> Order | None:
        """Of a pass; None = as they come."""
        if not self.shuffle:
            return None
        if self.chunks is not None:
            return ListedOrder(chunked_order(self.seed, number, self.chunks.of, self.chunks.window))
        return EpochOrder(self.seed, number, len(self.usable))


def apart(steps: int, views: int, view_bytes: int) -> int:
    """Groups between the views of a sample: what `MOST_HELD` is for, but no more than lie an epoch apart; at least 1.

    0 where there is one view, or one group.

    Args:
        steps: of an epoch.
        views: V per decode.
        view_bytes: of a group in one view.
    """
    if views == 1 or steps == 1:
        return 0
    even = (MOST_HELD // view_bytes - (views - 1)) * 2 // (views**2 - 1)  # half of it need not be rounded
    most = even if held_groups(even, views) * view_bytes <= MOST_HELD else even - 1
    return max(min(steps // views, most), 1)


def held_groups(apart: int, views: int) -> int:
    """How many groups are held in one view: view v = 1..V-1 until the last slot has shown it, and a group just made."""
    return sum(view * apart - apart // 2 + apart + 1 for view in range(1, views))

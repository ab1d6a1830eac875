"""Samples that are made before the batches that they are of. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from buttress.loading.batches import ArrayBatch


class DelayLine:
    """What is held in memory, by the batch that it waits for."""

    def __init__(self) -> None:
        self._due: dict[int, list[tuple[int, ArrayBatch, int]]] = {}
        self._like: ArrayBatch | None = None

    def clear(self) -> None:
        """Hold nothing."""
        self._due.clear()

    def put(
        self, arrays: ArrayBatch, time_B: NDArray[np.int64], slot_B: NDArray[np.int64], view_B: NDArray[np.int64]
    ) -> None:
        """Hold samples, those of a view in a memory of their own: it is free once all of them are shown.

        Args:
            arrays: the samples.
            time_B: of which batch each is.
            slot_B: its place there; the order in which they are given.
            view_B: its view.
        """
        self._like = arrays.take(np.zeros(0, np.int64))
        for view in np.unique(view_B).tolist():
            rows = np.flatnonzero(view_B == view)
            held = arrays.take(rows)
            for row, (time, slot) in enumerate(zip(time_B[rows].tolist(), slot_B[rows].tolist(), strict=True)):
                self._due.setdefault(time, []).append((slot, held, row))

    def batch(self, time: int) -> ArrayBatch:
        """The samples of a batch; they are held no more."""
        assert self._like is not None, "no batch before anything was made"
        rows = sorted(self._due.pop(time, ()), key=lambda held: held[0])
        assert len({slot for slot, _, _ in rows}) == len(rows), "a slot has one sample"
        return ArrayBatch.of_rows([(held, row) for _, held, row in rows], self._like)

    @property
    def bytes_held(self) -> int:
        """Of the views, the teachers' too."""
        held = {id(arrays): arrays for rows in self._due.values() for _, arrays, _ in rows}
        views = [view for each in held.values() for view in (each.views_BHWC, *(each.teacher_views or {}).values())]
        return sum(view.nbytes for view in views)

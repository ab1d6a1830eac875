"""Fresh views for a live teacher: the same view at the student's size and at the teacher's, from one decode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from buttress.loading.batches import ArrayBatch
from buttress.sources import Source, UndecodableImage
from buttress.sources.decode import decode
from buttress.sources.identity import id_hashes
from buttress.views.policy import Policy
from buttress.views.render import Picture, Pixels, Renderer


class OnlineBatches:
    """Views of a policy for the student and for the teacher. View number = epoch, so every epoch sees fresh views.

    Args:
        source: images; labels are given on where there are any.
        policy: augmentation.
        seed: seed of the views.
        size: side of the student's views, pixels.
        teacher_sizes: sides of the teacher's views, pixels.
    """

    def __init__(self, source: Source, policy: Policy, *, seed: int, size: int, teacher_sizes: Sequence[int]) -> None:
        self.source, self.classes = source, source.classes
        self.usable = np.arange(len(source))
        self._sizes = tuple(dict.fromkeys((size, *teacher_sizes)))
        self._size, self._teacher_sizes = size, tuple(teacher_sizes)
        self._hashes_N = id_hashes(source.ids)
        self._renderer = Renderer(policy, seed, len(source))

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int) -> ArrayBatch:
        """The batch of `indices` in `epoch`."""
        index_B = np.asarray(indices, np.int64)
        views = {side: np.empty((len(index_B), side, side, 3), np.uint8) for side in self._sizes}
        kept: list[int] = []
        bad: list[str] = []
        for index in index_B.tolist():
            try:
                self._draw(index, epoch, [views[side][len(kept)] for side in self._sizes])
            except UndecodableImage:
                bad.append(self.source.ids[index])
                continue
            kept.append(index)
        chosen_B = np.array(kept, np.int64)
        return ArrayBatch(
            views[self._size][: len(kept)],
            chosen_B,
            np.asarray(self.source.labels)[chosen_B],
            undecodable=tuple(bad),
            teacher_views={side: views[side][: len(kept)] for side in self._teacher_sizes},
        )

    def _draw(self, index: int, epoch: int, rows: Sequence[Pixels]) -> None:
        """One view into the rows of several batches."""
        own, pictures = self._picture(index), _Once(self)
        for row_HWC in rows:
            self._renderer.view_into(*own, epoch, row_HWC, pictures)

    def _picture(self, index: int) -> Picture:
        return decode(self.source[index].data), int(self._hashes_N[index])


class _Once:
    """Decodes the one partner that a view can have once for all sizes."""

    def __init__(self, batches: OnlineBatches) -> None:
        self._batches = batches
        self._found: dict[int, Picture] = {}

    def __call__(self, row: int) -> Picture:
        if row not in self._found:
            self._found[row] = self._batches._picture(row)
        return self._found[row]

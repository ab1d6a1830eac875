"""(sample indices, epoch) -> a batch of uint8 views and their targets. No torch: it runs in any worker process.

Shapes: N samples, B batch, H W pixels, K stored classes per view, C classes, V views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError, SourceError
from buttress.loading.coverage import Coverage, match
from buttress.loading.order import view_of_epoch
from buttress.sources import Source, UndecodableImage, content_hash
from buttress.sources.identity import id_hashes
from buttress.store.reader import Reinforcement
from buttress.store.rendering import check_renderer
from buttress.terminal import note
from buttress.views.keys import WordSource
from buttress.views.policy import Policy
from buttress.views.render import Renderer

CHOICE_SLOT = 0  # the draw "reinforced view or hard label"; slots below 256 belong to no op of a policy


@dataclass(frozen=True, slots=True)
class ArrayBatch:
    """Views and targets of the samples that could be decoded.

    Args:
        views_BHWC: uint8.
        index_B: positions in the source.
        labels_B: hard labels, -1 = none.
        values_BK, ids_BK, rest_B: the sparse soft target; none where the batch trains on hard labels.
        undecodable: ids that were left out.
        truth_B: float32, what the teacher thinks of the samples' own classes; NaN = not known.
        teacher_views: for a live teacher, the same views at each size that it wants, uint8.
    """

    views_BHWC: NDArray[np.uint8]
    index_B: NDArray[np.int64]
    labels_B: NDArray[np.int32]
    values_BK: NDArray[np.float32] | None = None
    ids_BK: NDArray[np.int32] | None = None
    rest_B: NDArray[np.float32] | None = None
    undecodable: tuple[str, ...] = ()
    truth_B: NDArray[np.float32] | None = None
    teacher_views: Mapping[int, NDArray[np.uint8]] | None = None


class Batches(Protocol):
    """What the loader needs of a way to make batches. Picklable."""

    classes: tuple[str, ...] | None
    source: Source
    usable: NDArray[np.int64]

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int) -> ArrayBatch: ...


class _Images:
    """Renders samples into batch rows, checking once per process that the bytes are those that the teacher saw."""

    def __init__(self, source: Source, policy: Policy, seed: int, size: int) -> None:
        self.source, self.size = source, size
        self.hashes_N = id_hashes(source.ids)
        self._renderer = Renderer(policy, seed)
        self._expected_N: NDArray[np.uint64] | None = None

    def expect(self, content_hashes_N: NDArray[np.uint64]) -> None:
        """Refuse samples whose bytes hash to anything else; 0 = not known."""
        self._expected_N = content_hashes_N.copy()

    def render(
        self, index_B: NDArray[np.int64], views_B: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
        """`[B', H, W, 3]` of those that decode, their places in the batch, the ids of the others."""
        out_BHWC = np.empty((len(index_B), self.size, self.size, 3), np.uint8)
        kept: list[int] = []
        bad: list[str] = []
        for place, (index, view) in enumerate(zip(index_B.tolist(), views_B.tolist(), strict=True)):
            try:
                sample = self.source[index]
                self._check(index, sample.id, sample.data)
                self._renderer.view_into(sample.data, int(self.hashes_N[index]), view, out_BHWC[len(kept)])
            except UndecodableImage:
                bad.append(self.source.ids[index])
                continue
            kept.append(place)
        return out_BHWC[: len(kept)], np.array(kept, np.int64), tuple(bad)

    def _check(self, index: int, sample_id: str, data: bytes | NDArray[np.uint8]) -> None:
        if self._expected_N is None or not self._expected_N[index]:
            return
        if content_hash(data) != self._expected_N[index]:
            raise SourceError(
                f"{sample_id}: the image has changed since the teacher saw it (other bytes under the same id); "
                "restore it, or give it another name and run the same buttress reinforce command again"
            )
        self._expected_N[index] = 0  # checked; not again in this process


class HardBatches:
    """Views of a policy with the source's own labels. View number = epoch, so every epoch sees fresh views.

    Args:
        source: images with labels.
        policy: augmentation; a deterministic one for evaluation.
        seed: seed of the views.
        size: side of the views, pixels.
    """

    def __init__(self, source: Source, policy: Policy, *, seed: int, size: int) -> None:
        labels = np.asarray(source.labels)
        self.source, self.classes = source, source.classes
        self.usable = np.flatnonzero(labels >= 0)
        if not len(self.usable):
            raise SourceError(f"{source.uri}: none of its {len(source):,} samples has a label to train or score on")
        self._images = _Images(source, policy, seed, size)

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int) -> ArrayBatch:
        """The batch of `indices` in `epoch`."""
        index_B = np.asarray(indices, np.int64)
        views_BHWC, kept, bad = self._images.render(index_B, np.full(len(index_B), epoch))
        index_B = index_B[kept]
        return ArrayBatch(views_BHWC, index_B, np.asarray(self.source.labels)[index_B], undecodable=bad)


class ReinforcedBatches:
    """Stored views with what the teacher said of them.

    In epoch e every sample takes view `view_of_epoch(e)`. With probability `1 - p` a sample that has a hard label takes
    a view that was not stored (number V + e) with that label instead (arXiv 2303.08983, section 4). Where the stored
    classes are the teacher's own (`--classes teacher`), no sample has one.

    Args:
        source: the images, in any order, filtered or extended.
        reinforcement: what the teacher said.
        size: side of the views, pixels.
        p: probability of a reinforced view, 0..1.
        missing: "error" or "hard", for samples the reinforcement does not know.
        seed: seed of the order of views and of the choice; the views themselves have the reinforcement's.
        truth: whether batches say what the teacher thinks of each sample's own class.
    """

    def __init__(
        self,
        source: Source,
        reinforcement: Reinforcement,
        *,
        size: int,
        p: float = 0.99,
        missing: str = "error",
        seed: int = 0,
        truth: bool = False,
    ) -> None:
        if not 0 <= p <= 1:
            raise SettingsError(f"p = {p}: a probability lies in 0..1")
        self.source, self.p, self.seed, self.truth = source, p, seed, truth
        self.reinforcement = reinforcement
        difference = check_renderer(reinforcement)
        if difference is not None:
            note(difference)
        self.coverage: Coverage = match(source, reinforcement, missing)
        self.classes: tuple[str, ...] | None = reinforcement.classes
        self.usable = np.flatnonzero(~self.coverage.undecodable)
        self._images = _Images(source, reinforcement.card.policy, reinforcement.card.seed, size)
        rows = self.coverage.rows
        known = np.asarray(reinforcement.content_hashes)[np.maximum(rows, 0)]
        self._images.expect(np.where(rows >= 0, known, np.uint64(0)))
        self._words = WordSource(seed)

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int) -> ArrayBatch:
        """The batch of `indices` in `epoch`."""
        index_B = np.asarray(indices, np.int64)
        soft_B = self._takes_stored_view(index_B, epoch)
        view = view_of_epoch(self.seed, epoch, self.reinforcement.views)
        views_B = np.where(soft_B, view, self.reinforcement.views + epoch)
        views_BHWC, kept, bad = self._images.render(index_B, views_B)
        index_B, soft_B = index_B[kept], soft_B[kept]
        labels_B = self.coverage.labels[index_B]
        targets = self._targets(index_B, soft_B, labels_B, view)
        truth_B = self._truth(index_B, soft_B, view) if self.truth else None
        return ArrayBatch(views_BHWC, index_B, labels_B, *targets, bad, truth_B=truth_B)

    def _truth(self, index_B: NDArray[np.int64], soft_B: NDArray[np.bool_], view: int) -> NDArray[np.float32]:
        """What the teacher thinks of the samples' own classes; NaN where no stored view is shown."""
        truth_B = np.full(len(index_B), np.nan, np.float32)
        if soft_B.any():
            truth_B[soft_B] = self.reinforcement.truth(self.coverage.rows[index_B[soft_B]], view)
        return truth_B

    def _takes_stored_view(self, index_B: NDArray[np.int64], epoch: int) -> NDArray[np.bool_]:
        rows_B, labels_B = self.coverage.rows[index_B], self.coverage.labels[index_B]
        hashes = self._images.hashes_N
        drawn_B = np.array(
            [self._words.words(epoch, int(hashes[i]), CHOICE_SLOT, 1)[0] for i in index_B.tolist()], np.uint64
        )
        unit_B = (drawn_B >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (rows_B >= 0) & ((unit_B < self.p) | (labels_B < 0))

    def _targets(
        self, index_B: NDArray[np.int64], soft_B: NDArray[np.bool_], labels_B: NDArray[np.int32], view: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        k = self.reinforcement.k
        values_BK, ids_BK = np.zeros((len(index_B), k), np.float32), np.zeros((len(index_B), k), np.int32)
        rest_B = np.zeros(len(index_B), np.float32)
        values_BK[:, 0], ids_BK[:, 0] = 1, labels_B
        if soft_B.any():
            rows = self.coverage.rows[index_B[soft_B]]
            values_BK[soft_B], ids_BK[soft_B], rest_B[soft_B] = self.reinforcement.targets(rows, view)
        return values_BK, ids_BK, rest_B

"""(sample indices, epoch) -> a batch of uint8 views and their targets. No torch: it runs in any worker process.

Shapes: N samples, B batch, H W pixels, K stored classes per view, C classes, V views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError, SourceError
from buttress.loading.coverage import Coverage, match, with_partners
from buttress.loading.images import Images, Rendered
from buttress.loading.order import view_of_epoch
from buttress.sources import Source
from buttress.store.partners import Partners
from buttress.store.reader import Reinforcement
from buttress.store.rendering import check_renderer
from buttress.store.truth import truth_of_targets
from buttress.terminal import note
from buttress.views.keys import WordSource
from buttress.views.policy import Policy

CHOICE_SLOT = 0  # the draw "reinforced view or hard label"; slots below 256 belong to no op of a policy


@dataclass(frozen=True, slots=True)
class ArrayBatch:
    """Views and targets of the samples that could be decoded.

    Args:
        views_BHWC: uint8.
        index_B: positions in the source. place_B: among the samples that were asked for.
        labels_B: hard labels of the own images, -1 = none.
        partner_labels_B: hard labels of the images that they are mixed with, -1 = none or not mixed.
        own_share_B: share of the view, 0..1, that is the own image's; 1 = not mixed.
        values_BK, ids_BK, rest_B: the sparse target; none where the batch trains on hard labels alone, or asks a live
            teacher.
        undecodable: ids that were left out.
        truth_B: float32, what the teacher thinks of the samples' own classes; NaN = not known, or a mixed view.
        teacher_views: for a live teacher, the same views at each size that it wants, uint8.
    """

    views_BHWC: NDArray[np.uint8]
    index_B: NDArray[np.int64]
    place_B: NDArray[np.int64]
    labels_B: NDArray[np.int32]
    partner_labels_B: NDArray[np.int32]
    own_share_B: NDArray[np.float32]
    values_BK: NDArray[np.float32] | None = None
    ids_BK: NDArray[np.int32] | None = None
    rest_B: NDArray[np.float32] | None = None
    undecodable: tuple[str, ...] = ()
    truth_B: NDArray[np.float32] | None = None
    teacher_views: Mapping[int, NDArray[np.uint8]] | None = None

    def take(self, rows_R: NDArray[np.int64]) -> ArrayBatch:
        """Some of the samples, in a memory of their own; it tells of no undecodable images."""
        arrays = {name: value[rows_R] for name in _BY_SAMPLE if (value := getattr(self, name)) is not None}
        sides = {side: views[rows_R] for side, views in (self.teacher_views or {}).items()}
        return replace(self, **arrays, undecodable=(), teacher_views=sides or None)

    @staticmethod
    def of_rows(rows: Sequence[tuple[ArrayBatch, int]], like: ArrayBatch) -> ArrayBatch:
        """Samples of several batches, in a memory of their own; it tells of no undecodable images.

        Args:
            rows: batches, and which of their samples.
            like: any batch of that kind, where there is no row.
        """

        def joined(of: Callable[[ArrayBatch], Any]) -> Any:
            """One of the arrays."""
            return np.stack([of(batch)[row] for batch, row in rows]) if rows else of(like)[:0].copy()

        arrays = {name: joined(attrgetter(name)) for name in _BY_SAMPLE if getattr(like, name) is not None}
        sides = {side: joined(partial(_teacher_view, side)) for side in like.teacher_views or ()}
        return replace(like, **arrays, undecodable=(), teacher_views=sides or None)

    def label_masses(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        """Masses `[B, 2]`, classes and rest of the hard labels: the own share on the own, the others on the partner's.

        Where both are the same, or nothing is mixed, slot 0 has all. Where one that is needed is not known, there is no
        mass at all.
        """
        mixed_B = self.own_share_B < 1
        known_B = (self.labels_B >= 0) & (~mixed_B | (self.partner_labels_B >= 0))
        two_B = mixed_B & (self.partner_labels_B != self.labels_B)
        own_B = np.where(two_B, self.own_share_B, np.float32(1))
        values_B2 = np.stack([own_B, 1 - own_B], axis=1) * known_B[:, None]
        ids_B2 = np.stack([self.labels_B, np.where(two_B, self.partner_labels_B, self.labels_B)], axis=1)
        return values_B2.astype(np.float32), np.maximum(ids_B2, 0), np.zeros(len(known_B), np.float32)


def _teacher_view(side: int, arrays: ArrayBatch) -> NDArray[np.uint8]:
    assert arrays.teacher_views is not None
    return arrays.teacher_views[side]


_BY_SAMPLE = (
    *("views_BHWC", "index_B", "place_B", "labels_B", "partner_labels_B", "own_share_B"),
    *("values_BK", "ids_BK", "rest_B", "truth_B"),
)


class Batches(Protocol):
    """What the loader needs of a way to make batches. Picklable.

    classes: names of those of the targets. label_classes: how many there are of the labels; 0 = no sample has one.
    view_bytes: of the pixels of a sample in one view, the teachers' too.
    """

    classes: tuple[str, ...] | None
    label_classes: int
    view_bytes: int
    source: Source
    usable: NDArray[np.int64]

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int | NDArray[np.int64]) -> ArrayBatch: ...


class FreshBatches:
    """Views of a policy with the source's own labels. View number = epoch, so every epoch sees fresh views.

    Args:
        source: images.
        policy: augmentation; a deterministic one for evaluation.
        seed: seed of the views.
        size: side of the views, pixels.
        usable: positions of the samples that are shown and, where the policy mixes, drawn as partners.
        teacher_sizes: sides of the views that a live teacher wants beside, pixels; from the same decode.
    """

    def __init__(
        self,
        source: Source,
        policy: Policy,
        *,
        seed: int,
        size: int,
        usable: NDArray[np.int64],
        teacher_sizes: Sequence[int] = (),
    ) -> None:
        self.source, self.classes, self.label_classes = source, source.classes, len(source.classes or ())
        self.usable, self._teacher_sizes = usable, tuple(teacher_sizes)
        sizes = tuple(dict.fromkeys((size, *teacher_sizes)))
        self._images = Images(source, policy, seed, sizes, usable if policy.mixes else usable[:0])
        self.view_bytes = sum(3 * side * side for side in (size, *teacher_sizes))

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int | NDArray[np.int64]) -> ArrayBatch:
        """The batch of `indices` in `epoch`, or in an epoch for each."""
        index_B = np.asarray(indices, np.int64)
        epoch_B = np.broadcast_to(np.asarray(epoch, np.int64), index_B.shape)
        drawn = self._images.render(index_B, epoch_B, np.ones(len(index_B), bool))
        index_B = index_B[drawn.kept]
        return ArrayBatch(
            drawn.views_BHWC,
            index_B,
            drawn.kept,
            *drawn.labels(index_B, np.asarray(self.source.labels, np.int32)),
            undecodable=drawn.bad,
            teacher_views={side: drawn.sides[side] for side in self._teacher_sizes} or None,
        )


class HardBatches(FreshBatches):
    """Fresh views of the labelled samples; where the policy mixes, a target is both labels by their shares.

    Args:
        source: images with labels.
        policy: augmentation; a deterministic one for evaluation.
        seed: seed of the views.
        size: side of the views, pixels.
    """

    def __init__(self, source: Source, policy: Policy, *, seed: int, size: int) -> None:
        labelled = np.flatnonzero(np.asarray(source.labels) >= 0)
        if not len(labelled):
            raise SourceError(f"{source.uri}: none of its {len(source):,} samples has a label to train or score on")
        super().__init__(source, policy, seed=seed, size=size, usable=labelled)


class ReinforcedBatches:
    """Stored views with what the teacher said of them.

    In epoch e every sample takes view `view_of_epoch(e)`. With probability `1 - p` a sample that has a hard label takes
    a view that was not stored (number V + e) with that label instead (arXiv 2303.08983, section 4). Where the stored
    classes are the teacher's own (`--classes teacher`), no sample has one.

    A view that is mixed with an image that is not in the source gives way to the sample's next one that can be drawn;
    where none can, to a view that was not stored with the hard label. Views that were not stored are never mixed.

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
        coverage = match(source, reinforcement, missing)
        self._partners = Partners(source, reinforcement, coverage.rows)
        card, index_M = reinforcement.card, self._partners.index_M
        self._images = Images(source, card.policy, card.seed, [size], index_M, self._partners.renderer)
        self.view_bytes = 3 * size * size
        self.coverage: Coverage = with_partners(coverage, self._partners, self._images.hashes_N, card.views)
        self.classes: tuple[str, ...] | None = reinforcement.classes
        self.labels_N, self.label_classes = self.coverage.labels, len(reinforcement.classes)
        self.usable = np.flatnonzero(~self.coverage.left_out)
        rows = self.coverage.rows
        known = np.asarray(reinforcement.content_hashes)[np.maximum(rows, 0)]
        self._images.expect(np.where(rows >= 0, known, np.uint64(0)))
        self._words = WordSource(seed)

    def line(self) -> str:
        """What is used, in one line for the user."""
        return self.coverage.line()

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int | NDArray[np.int64]) -> ArrayBatch:
        """The batch of `indices` in `epoch`, or in an epoch for each."""
        index_B = np.asarray(indices, np.int64)
        epoch_B = np.broadcast_to(np.asarray(epoch, np.int64), index_B.shape)
        views_B = self._stored_views(index_B, epoch_B)
        soft_B = views_B >= 0
        drawn = self._images.render(index_B, np.where(soft_B, views_B, self.reinforcement.views + epoch_B), soft_B)
        index_B, views_B = index_B[drawn.kept], views_B[drawn.kept]
        truth_B = self._truth(index_B, views_B, drawn) if self.truth else None
        labels = drawn.labels(index_B, self.labels_N)
        targets = self._targets(index_B, views_B)
        return ArrayBatch(drawn.views_BHWC, index_B, drawn.kept, *labels, *targets, drawn.bad, truth_B)

    def _stored_views(self, index_B: NDArray[np.int64], epoch_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the stored view of every sample; -1 = one that was not stored, with the hard label."""
        epochs, which_B = np.unique(epoch_B, return_inverse=True)
        views = [view_of_epoch(self.seed, epoch, self.reinforcement.views) for epoch in epochs.tolist()]
        views_B = np.where(self._takes_stored_view(index_B, epoch_B), np.array(views, np.int64)[which_B], -1)
        if not self._partners.complete:
            for place in np.flatnonzero(views_B >= 0).tolist():
                asked = int(self._images.hashes_N[index_B[place]]), int(views_B[place])
                taken = self._partners.next_view(*asked)
                views_B[place] = -1 if taken is None else taken
        return views_B

    def _truth(self, index_B: NDArray[np.int64], views_B: NDArray[np.int64], drawn: Rendered) -> NDArray[np.float32]:
        """What the teacher thinks of the samples' own classes; NaN where no stored view is shown, or a mixed one."""
        truth_B, asked_B = np.full(len(index_B), np.nan, np.float32), (views_B >= 0) & (drawn.partner_B < 0)
        if not asked_B.any():
            return truth_B
        rows_B, views = self.coverage.rows[index_B[asked_B]], _together(views_B[asked_B])
        if self.reinforcement.card.has_truth:
            truth_B[asked_B] = self.reinforcement.truth(rows_B, views)
        else:  # by the labels that this source has among the stored classes
            labels_B, said = self.coverage.labels[index_B[asked_B]], self.reinforcement.targets(rows_B, views)
            truth_B[asked_B] = truth_of_targets(*said, labels_B=labels_B, classes=len(self.reinforcement.classes))
        return truth_B

    def _takes_stored_view(self, index_B: NDArray[np.int64], epoch_B: NDArray[np.int64]) -> NDArray[np.bool_]:
        rows_B, labels_B = self.coverage.rows[index_B], self.coverage.labels[index_B]
        hashes = self._images.hashes_N
        asked = zip(epoch_B.tolist(), hashes[index_B].tolist(), strict=True)
        drawn_B = np.array([self._words.words(epoch, name, CHOICE_SLOT, 1)[0] for epoch, name in asked], np.uint64)
        unit_B = (drawn_B >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (rows_B >= 0) & ((unit_B < self.p) | (labels_B < 0))

    def _targets(
        self, index_B: NDArray[np.int64], views_B: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        k = self.reinforcement.k
        values_BK, ids_BK = np.zeros((len(index_B), k), np.float32), np.zeros((len(index_B), k), np.int32)
        rest_B, soft_B = np.zeros(len(index_B), np.float32), views_B >= 0
        values_BK[:, 0], ids_BK[:, 0] = 1, self.coverage.labels[index_B]
        if soft_B.any():
            rows_B, views = self.coverage.rows[index_B[soft_B]], _together(views_B[soft_B])
            values_BK[soft_B], ids_BK[soft_B], rest_B[soft_B] = self.reinforcement.targets(rows_B, views)
        return values_BK, ids_BK, rest_B


def _together(views_B: NDArray[np.int64]) -> int | NDArray[np.int64]:
    """View numbers as one where all are the same, which reads faster."""
    return int(views_B[0]) if len(views_B) and (views_B == views_B[0]).all() else views_B

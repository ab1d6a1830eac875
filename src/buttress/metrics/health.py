"""The health of a data set as its reinforcement shows it: wrong labels, duplicates, hard and ambiguous samples.

Needs the store and the source, and neither the teacher nor torch. What comes out are plain lists for a person or a
program to act on; each entry of a sample has at least its `id`, `label`, `suggested` (a class, or None) and `score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError, StoreError
from buttress.loading.coverage import Coverage, look_up
from buttress.metrics.consensus import Consensus, consensus
from buttress.metrics.duplicates import missing_hashes, same_files, same_pictures
from buttress.metrics.label_errors import CUT, LabelNoise, label_noise
from buttress.sources import Relabelled, Source
from buttress.store.partners import plain_views
from buttress.store.reader import Reinforcement

Entry = dict[str, Any]


@dataclass(frozen=True)
class Health:
    """What a reinforcement says of the samples of a source.

    Args:
        source: the images, under the labels that are to be judged.
        store: what the teacher said.
        coverage: which samples it knows.
        places: the N samples that were judged, by their place in the source.
        only_mixed: the samples that could not be, since every view of theirs is mixed with another image.
        views: how many views the judgement rests on, of all samples together.
        mixed: how many were left out of it, being mixed: they show two images and tell of no single label.
        said: the teacher's answers about them.
        labelled: which of them have a label among the stored classes, by their number 0..N-1.
        noise: how wrong those labels are; none where there is no label to judge.
    """

    source: Source
    store: Reinforcement
    coverage: Coverage
    places: NDArray[np.int64]
    only_mixed: NDArray[np.int64]
    views: int
    mixed: int
    said: Consensus
    labelled: NDArray[np.int64]
    noise: LabelNoise | None

    @property
    def unjudged(self) -> str | None:
        """Why no label can be judged; none where some were."""
        if self.noise is not None:
            return None
        if self.coverage.teachers_classes:
            return "the stored classes are the teacher's own, so the labels cannot be compared with them"
        return "no sample has a label"

    @property
    def flagged(self) -> int:
        """How many labels are likelier wrong than right."""
        return 0 if self.noise is None else int((self.noise.wrong_N > CUT).sum())

    @cached_property
    def wrong_N(self) -> NDArray[np.float64]:
        """Probability, 0..1, that a judged sample's label is wrong, `[N]`; NaN where it has none."""
        wrong_N = np.full(len(self.places), np.nan)
        if self.noise is not None:
            wrong_N[self.labelled] = self.noise.wrong_N
        return wrong_N

    def ranked(self) -> NDArray[np.int64]:
        """Every place of the source, those first that are most worth a look.

        The labels that are likeliest wrong; then samples without a label, most ambiguous first; then those that could
        not be judged.
        """
        wrong_N, given_N = np.nan_to_num(self.wrong_N, nan=-1), np.nan_to_num(self.said.given_N, nan=1)
        order = np.lexsort((-self.said.entropy_N, given_N, -wrong_N))
        return np.concatenate([self.places[order], np.setdiff1d(np.arange(len(self.source)), self.places)])

    def label_errors(self, top: int) -> list[Entry]:
        """Every label that is likelier wrong than right (`flagged`), then the next likely ones up to `top` in all.

        `score`: probability that the label is wrong. `label_probability`, `suggested_probability`: the teacher's, mean
        over the views.
        """
        if self.noise is None:
            return []
        wrong = self.noise.wrong_N
        order = np.argsort(-wrong, kind="stable")[: max(top, self.flagged)]
        return [
            {
                **self._entry(int(number), float(wrong[place]), self._other(int(number))),
                "label_probability": float(self.said.given_N[number]),
                "flagged": bool(wrong[place] > CUT),
            }
            for place, number in zip(order.tolist(), self.labelled[order].tolist(), strict=True)
        ]

    def hardest(self, top: int) -> list[Entry]:
        """Samples whose label is likely right and has the lowest probability (`score`)."""
        if self.noise is None:
            return []
        right = self.labelled[self.noise.wrong_N <= CUT]
        order = right[np.argsort(self.said.given_N[right], kind="stable")][:top]
        return [
            self._entry(number, float(self.said.given_N[number]), self._likeliest(number)) for number in order.tolist()
        ]

    def ambiguous(self, top: int) -> list[Entry]:
        """Samples on which the teacher can least decide: highest entropy of the mean over the views (`score`, nat).

        `disagreement`: how much of it, in nat, is views that contradict one another.
        """
        order = np.argsort(-self.said.entropy_N, kind="stable")[:top]
        return [
            {
                **self._entry(number, float(self.said.entropy_N[number]), self._likeliest(number)),
                "disagreement": float(self.said.disagreement_N[number]),
            }
            for number in order.tolist()
        ]

    def duplicates(self) -> list[Entry]:
        """Every group of samples that are the very same file: `ids`, `labels`, and whether those are one."""
        return [self._group(group) for group in self._same_files()]

    def near_duplicates(self) -> list[Entry]:
        """Pairs of the same picture in other files, as `duplicates`, with their correlation as `score`. Decodes all."""
        repeats = {place for group in self._same_files() for place in group[1:]}
        places = np.array([place for place in range(len(self.source)) if place not in repeats], np.int64)
        pairs = same_pictures(self.source, places)
        return [{**self._group([pair.first, pair.second]), "score": pair.alike} for pair in pairs]

    def _same_files(self) -> list[list[int]]:
        rows = self.coverage.rows
        known = np.asarray(self.store.content_hashes)[np.maximum(rows, 0)]
        return same_files(missing_hashes(self.source, np.where(rows >= 0, known, np.uint64(0))))

    def _entry(self, number: int, score: float, suggested: int | None) -> Entry:
        place = int(self.places[number])
        entry = {"id": self.source.ids[place], "label": self.label(place), "suggested": None, "score": score}
        if suggested is not None:
            kept = self.said.ids_NK[number].tolist().index(suggested)
            entry["suggested"] = self.store.classes[suggested]
            entry["suggested_probability"] = float(self.said.values_NK[number, kept])
        return entry

    def _likeliest(self, number: int) -> int:
        return int(self.said.ids_NK[number, 0])

    def _other(self, number: int) -> int | None:
        """The likeliest class that is not the label; none where only the label is stored."""
        label = int(self.source.labels[self.places[number]])
        return next((int(one) for one in self.said.ids_NK[number] if one != label), None)

    def label(self, place: int) -> str | None:
        """The class of the sample at a place of the source; none where it has no label."""
        label = int(self.source.labels[place])
        return None if label < 0 or self.source.classes is None else self.source.classes[label]

    def _group(self, group: Sequence[int]) -> Entry:
        labels = [self.label(place) for place in group]
        return {
            "ids": [self.source.ids[place] for place in group],
            "labels": labels,
            "same_label": len(set(labels)) < 2,
        }


def examine(source: Source, store: Reinforcement) -> Health:
    """Read all that is stored about the samples of a source, and judge their labels.

    The labels are the source's own, which may be others than at labelling: they are what is in question. Views that are
    mixed with another image are left out: what is seen of them is not one image's.

    Raises:
        StoreError: class names differ, what is read is damaged, or every view is mixed.
        SourceError: the store knows none of the samples.
    """
    unlabelled = np.full(len(source), -1, np.int32)
    asked = source if source.classes is None else Relabelled(source, unlabelled)  # the classes must be equal, no label
    coverage = look_up(asked, store)
    known = np.flatnonzero((coverage.rows >= 0) & ~coverage.undecodable)
    if not len(known):
        renamed = "" if coverage.renamed is None else f" ({coverage.renamed})"
        raise SourceError(
            f"{source.uri}: none of its samples is in {store.path}{renamed}; give the images it was made from, under "
            "their names then"
        )
    plain_NV = plain_views(store, coverage.rows[known])
    alone = plain_NV.any(axis=1)
    if not alone.any():
        raise StoreError(
            f"{store.path}: every view is mixed with another image, so none tells of one image's label; inspect a "
            "reinforcement whose policy mixes less or not at all (buttress reinforce --policy)"
        )
    places, views = known[alone], int(plain_NV.sum())
    own = coverage.teachers_classes
    labels_N = (unlabelled if own else np.asarray(source.labels, np.int32))[places]
    said = consensus(store, coverage.rows[places], labels_N, plain_NV[alone])
    labelled = np.flatnonzero(labels_N >= 0)
    noise = label_noise(said.of(labelled), labels_N[labelled], len(store.classes)) if len(labelled) else None
    return Health(
        source=source,
        store=store,
        coverage=coverage,
        places=places,
        only_mixed=known[~alone],
        views=views,
        mixed=plain_NV.size - views,
        said=said,
        labelled=labelled,
        noise=noise,
    )

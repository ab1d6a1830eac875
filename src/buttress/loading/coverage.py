"""Which rows of a reinforcement belong to which samples of a source, and whether the two may be used together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError, SourceError, StoreError
from buttress.loading.renamed import Renamed, find_renamed
from buttress.sources import Source, fingerprint
from buttress.sources.identity import id_hashes
from buttress.store.partners import Partners
from buttress.store.reader import Reinforcement

OLD_NAMES = "give them their old names back"
COUNTED_VIEWS = 2**18  # a second or so; of more views every n-th is looked at


@dataclass(frozen=True)
class Coverage:
    """How a source and a reinforcement meet.

    Args:
        rows: row of every sample, `[N]`; -1 = the reinforcement does not know its id.
        labels: the samples' own classes among the stored ones, `[N]`; -1 = none.
        undecodable: samples `[N]` whose image could not be decoded when it was labelled.
        stored: rows of the reinforcement in all.
        changed: true where source and reinforcement are not the same list of ids.
        teachers_classes: true where the stored classes are the teacher's own, so that no sample has a label in them.
        hard: whether samples without a row are to use their labels.
        views: stored views of the samples, in all.
        undrawable: how many of them are mixed with an image that is not in the source: the sample takes another.
        counted: whether that number was counted, and not estimated on a part of them.
        stuck: samples `[N]` of which no view can be drawn, and which have no label to take instead; none = no sample.
        renamed: which of the samples without a row are images that the reinforcement knows under other ids.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    undecodable: NDArray[np.bool_]
    stored: int
    changed: bool
    teachers_classes: bool
    hard: bool = False
    views: int = 0
    undrawable: int = 0
    counted: bool = True
    stuck: NDArray[np.bool_] | None = None
    renamed: Renamed | None = None

    @property
    def left_out(self) -> NDArray[np.bool_]:
        """Samples `[N]` that nothing can be learnt from."""
        return self.undecodable if self.stuck is None else self.undecodable | self.stuck

    def line(self, labelled: int | None = None) -> str:
        """One line for the user; `labelled` samples have a label that is used beside the teacher's own classes."""
        samples, missing = len(self.rows), int((self.rows < 0).sum())
        known = samples - missing
        text = f"{known:,} of {samples:,} samples are reinforced ({self.stored:,} in the reinforcement)"
        if missing:
            text += f", {missing:,} " + ("use their hard labels" if self.hard else "have no stored labels")
            text += f": {self.renamed}" if self.renamed else ""
        if self.undecodable.any():
            text += f", {int(self.undecodable.sum()):,} left out (image not decodable)"
        text += self._partners_text()
        if self.teachers_classes and labelled is None:
            text += "; the classes are the teacher's own, so hard labels are not used"
        elif self.teachers_classes:
            text += (
                f"; the classes are the teacher's own, for the second head, and {labelled:,} have a label for the first"
            )
        return text

    def _partners_text(self) -> str:
        stuck = 0 if self.stuck is None else int(self.stuck.sum())
        text = ""
        if self.undrawable:
            count = f"{'' if self.counted else 'about '}{self.undrawable:,} of their {self.views:,} views"
            text = f", {count} give way to another (they are mixed with images that are not here)"
        return text + (f", {stuck:,} left out (no view of theirs can be drawn)" if stuck else "")


def match(source: Source, reinforcement: Reinforcement, missing: str = "error") -> Coverage:
    """Find every sample's row by its id; a moved, re-ordered, filtered or extended source is fine.

    Args:
        source: the images.
        reinforcement: what the teacher said.
        missing: "error" or "hard": what to do with samples that the reinforcement does not know.

    Raises:
        StoreError: class names or a sample's class differ.
        SourceError: ids without labels.
        SettingsError: hard labels are wanted in classes that are the teacher's own.
    """
    if missing not in ("error", "hard"):
        raise SettingsError(f"--missing {missing}: choose error or hard")
    coverage = replace(look_up(source, reinforcement), hard=missing == "hard")
    if coverage.hard and coverage.teachers_classes:
        raise SettingsError(
            f"--missing hard: {reinforcement.path} has the teacher's own classes (--classes teacher), in which the "
            "images have no hard labels; leave it out, and label new images by the same buttress reinforce command"
        )
    _check_missing(source, coverage)
    return coverage


def with_partners(coverage: Coverage, partners: Partners, hashes_N: NDArray[np.uint64], views: int) -> Coverage:
    """The same, with what comes of views that are mixed with images that the source does not have.

    Args:
        coverage: from `match`.
        partners: of the same source and reinforcement.
        hashes_N: id hash of every sample.
        views: V, stored per sample.
    """
    known = np.flatnonzero((coverage.rows >= 0) & ~coverage.undecodable)
    total = len(known) * views
    if partners.complete or not total:
        return replace(coverage, views=total)
    step = -(-total // COUNTED_VIEWS)
    looked_at = range(0, total, step)
    lost = sum(not partners.drawable(int(hashes_N[known[pair // views]]), pair % views) for pair in looked_at)
    stuck_N = np.zeros(len(coverage.rows), bool)
    for index in known[coverage.labels[known] < 0].tolist():
        stuck_N[index] = partners.next_view(int(hashes_N[index]), 0) is None
    return replace(
        coverage,
        views=total,
        undrawable=round(lost * total / len(looked_at)),
        counted=step == 1,
        stuck=stuck_N,
    )


def look_up(source: Source, reinforcement: Reinforcement) -> Coverage:
    """`match` that only looks: samples that the reinforcement does not know are not refused.

    Raises:
        StoreError: class names or a sample's class differ.
    """
    own = _has_teachers_classes(source, reinforcement)
    same = fingerprint(source) == reinforcement.card.source.fingerprint
    if same:
        rows = np.arange(len(source), dtype=np.int64)
    else:
        rows = reinforcement.rows_of(id_hashes(source.ids))
    renamed = find_renamed(source, reinforcement, rows)
    if not own:
        _check_classes(source, reinforcement, renamed)
        _check_labels(source, reinforcement, rows)
    skipped = np.asarray(reinforcement.absent_rows, np.int64)
    return Coverage(
        rows=rows,
        labels=np.full(len(source), -1, np.int32) if own else np.asarray(source.labels, np.int32),
        undecodable=np.isin(rows, skipped),
        stored=reinforcement.rows,
        changed=not same,
        teachers_classes=own,
        renamed=renamed,
    )


def _has_teachers_classes(source: Source, reinforcement: Reinforcement) -> bool:
    """Whether what is stored is in classes of the teacher's that are not those of the source."""
    return reinforcement.card.keeps_teachers_classes and (
        source.classes is None or tuple(source.classes) != tuple(reinforcement.classes)
    )


def _check_classes(source: Source, reinforcement: Reinforcement, renamed: Renamed | None) -> None:
    stored = reinforcement.classes
    if source.classes is None or tuple(source.classes) == tuple(stored):
        return
    ours, theirs = set(source.classes), set(stored)
    if ours == theirs:
        what = "the same class names in another order"
    else:
        only = [
            *(f"+{name}" for name in sorted(ours - theirs)[:3]),
            *(f"-{name}" for name in sorted(theirs - ours)[:3]),
        ]
        what = f"other class names ({', '.join(only)})"
    raise StoreError(
        f"{source.uri}: {what} than the reinforcement {reinforcement.path} "
        f"({len(source.classes)} against {len(stored)}); "
        + ("use its own images" if renamed is None else f"of the images without labels {renamed}: {OLD_NAMES}")
        + ", or run buttress reinforce anew"
    )


def _check_labels(source: Source, reinforcement: Reinforcement, rows: NDArray[np.int64]) -> None:
    known = np.flatnonzero(rows >= 0)
    ours, theirs = np.asarray(source.labels)[known], np.asarray(reinforcement.hard_labels)[rows[known]]
    wrong = known[(ours != theirs) & (ours >= 0) & (theirs >= 0)]
    if len(wrong) and source.classes is not None:
        first = int(wrong[0])
        number, names = int(reinforcement.hard_labels[rows[first]]), reinforcement.classes
        was = names[number] if number < len(names) else f"number {number}"  # that of a source with other classes
        raise StoreError(
            f"{source.ids[first]}: its class is {source.classes[int(source.labels[first])]} but was {was} when "
            f"{reinforcement.path} was made ({len(wrong)} such samples); run buttress reinforce into another folder"
        )


def _check_missing(source: Source, coverage: Coverage) -> None:
    unknown = np.flatnonzero(coverage.rows < 0)
    if not len(unknown):
        return
    first = source.ids[int(unknown[0])]
    if not coverage.hard:
        other_way = ", or use --missing hard to train them on their hard labels"
        renamed = "" if coverage.renamed is None else f"{coverage.renamed}: {OLD_NAMES}, or "
        raise SourceError(
            f"{first} has no stored labels ({len(unknown):,} of {len(source):,} samples have none); {renamed}run the "
            f"same buttress reinforce command again to label them{'' if coverage.teachers_classes else other_way}"
        )
    unlabelled = unknown[coverage.labels[unknown] < 0]
    if len(unlabelled):
        raise SourceError(
            f"{source.ids[int(unlabelled[0])]} has neither stored labels nor a class of its own "
            f"({len(unlabelled):,} such samples); run the same buttress reinforce command again to label them"
        )

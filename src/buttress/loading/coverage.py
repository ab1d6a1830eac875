"""Which rows of a reinforcement belong to which samples of a source, and whether the two may be used together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError, SourceError, StoreError
from buttress.sources import Source, fingerprint
from buttress.sources.identity import id_hashes
from buttress.store.reader import Reinforcement


@dataclass(frozen=True)
class Coverage:
    """How a source and a reinforcement meet.

    Args:
        rows: row of every sample, `[N]`; -1 = the reinforcement does not know its id.
        undecodable: samples `[N]` whose image could not be decoded when it was labelled.
        stored: rows of the reinforcement in all.
        changed: true where source and reinforcement are not the same list of ids.
    """

    rows: NDArray[np.int64]
    undecodable: NDArray[np.bool_]
    stored: int
    changed: bool

    def line(self) -> str:
        """One line for the user."""
        samples, missing = len(self.rows), int((self.rows < 0).sum())
        known = samples - missing
        text = f"{known:,} of {samples:,} samples are reinforced ({self.stored:,} in the reinforcement)"
        if missing:
            text += f", {missing:,} use their hard labels"
        if self.undecodable.any():
            text += f", {int(self.undecodable.sum()):,} left out (image not decodable)"
        return text


def match(source: Source, reinforcement: Reinforcement, missing: str = "error") -> Coverage:
    """Find every sample's row by its id; a moved, re-ordered, filtered or extended source is fine.

    Args:
        source: the images.
        reinforcement: what the teacher said.
        missing: "error" or "hard": what to do with samples that the reinforcement does not know.

    Raises:
        StoreError: class names or a sample's class differ.
        SourceError: ids without labels.
    """
    if missing not in ("error", "hard"):
        raise SettingsError(f"--missing {missing}: choose error or hard")
    _check_classes(source, reinforcement)
    same = fingerprint(source) == reinforcement.card.source.fingerprint
    if same:
        rows = np.arange(len(source), dtype=np.int64)
    else:
        rows = reinforcement.rows_of(id_hashes(source.ids))
    _check_labels(source, reinforcement, rows)
    _check_missing(source, rows, missing)
    skipped = np.asarray(reinforcement.absent_rows, np.int64)
    return Coverage(rows, np.isin(rows, skipped), reinforcement.rows, not same)


def _check_classes(source: Source, reinforcement: Reinforcement) -> None:
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
        f"({len(source.classes)} against {len(stored)}); use its own images, or run buttress reinforce anew"
    )


def _check_labels(source: Source, reinforcement: Reinforcement, rows: NDArray[np.int64]) -> None:
    known = np.flatnonzero(rows >= 0)
    ours, theirs = np.asarray(source.labels)[known], np.asarray(reinforcement.hard_labels)[rows[known]]
    wrong = known[(ours != theirs) & (ours >= 0) & (theirs >= 0)]
    if len(wrong) and source.classes is not None:
        first = int(wrong[0])
        was = reinforcement.classes[int(reinforcement.hard_labels[rows[first]])]
        raise StoreError(
            f"{source.ids[first]}: its class is {source.classes[int(source.labels[first])]} but was {was} when "
            f"{reinforcement.path} was made ({len(wrong)} such samples); run buttress reinforce into another folder"
        )


def _check_missing(source: Source, rows: NDArray[np.int64], missing: str) -> None:
    unknown = np.flatnonzero(rows < 0)
    if not len(unknown):
        return
    first = source.ids[int(unknown[0])]
    if missing == "error":
        raise SourceError(
            f"{first} has no stored labels ({len(unknown):,} of {len(source):,} samples have none); run the same "
            "buttress reinforce command again to label them, or use --missing hard to train them on their hard labels"
        )
    unlabelled = unknown[np.asarray(source.labels)[unknown] < 0]
    if len(unlabelled):
        raise SourceError(
            f"{source.ids[int(unlabelled[0])]} has neither stored labels nor a class of its own "
            f"({len(unlabelled):,} such samples); run the same buttress reinforce command again to label them"
        )

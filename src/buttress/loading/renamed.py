"""Samples that a reinforcement knows under other ids: the same bytes, renamed or moved since.

Shapes: N samples of the source, U of them unknown by their ids, L of those looked at, S rows stored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buttress.sources import Source, UndecodableImage, content_hash
from buttress.store.reader import Reinforcement

LOOKED_AT = 2048  # images that are read, at most; of more every n-th


@dataclass(frozen=True, slots=True)
class Renamed:
    """What was found.

    Args:
        count: unknown samples whose bytes are stored under an id that the source has no more.
        unknown: U.
        counted: whether all were looked at; else `count` is an estimate.
        example: id of one of them, as it is now.
        classes: class names as they are now, each with what it was, where the two differ for all that were found.
    """

    count: int
    unknown: int
    counted: bool
    example: str
    classes: dict[str, str]

    def __str__(self) -> str:
        about = "" if self.counted else "about "
        text = f"{about}{self.count:,} of {self.unknown:,} were renamed (the same bytes are stored under other ids"
        text += f", e.g. those of {self.example}"
        pairs = [f"{was} is now {now}" for now, was in list(self.classes.items())[:3]]
        more = f" and {len(self.classes) - 3:,} more" if len(self.classes) > 3 else ""
        return text + (f"; class {', '.join(pairs)}{more})" if pairs else ")")


def find_renamed(source: Source, reinforcement: Reinforcement, rows_N: NDArray[np.int64]) -> Renamed | None:
    """Read the images that are not known by their ids, and look for their bytes; none where none is found.

    Copies of an image that is still there under its own id are not renamed ones.

    Args:
        source: the images.
        reinforcement: what the teacher said.
        rows_N: row of every sample; -1 = its id is not known.
    """
    unknown_U = np.flatnonzero(rows_N < 0)
    if not len(unknown_U):
        return None
    gone_S = np.ones(reinforcement.rows, np.bool_)
    gone_S[rows_N[rows_N >= 0]] = False
    if not gone_S.any():
        return None
    step = -(-len(unknown_U) // LOOKED_AT)
    looked_at = unknown_U[::step].tolist()
    contents_L = np.array([_content(source, index) for index in looked_at], np.uint64)
    stored_S = np.asarray(reinforcement.content_hashes)
    rows = np.flatnonzero(gone_S & np.isin(stored_S, contents_L) & (stored_S != 0)).tolist()
    row_of = {int(stored_S[row]): row for row in rows}
    asked = zip(looked_at, contents_L.tolist(), strict=True)
    found = {index: row_of[content] for index, content in asked if content in row_of}
    if not found:
        return None
    return Renamed(
        count=round(len(found) * len(unknown_U) / len(looked_at)),
        unknown=len(unknown_U),
        counted=step == 1,
        example=source.ids[next(iter(found))],
        classes=_renamed_classes(source, reinforcement, found),
    )


def _content(source: Source, index: int) -> int:
    """The content hash; 0 where the image cannot be read."""
    try:
        return content_hash(source[index].data)
    except UndecodableImage:
        return 0


def _renamed_classes(source: Source, reinforcement: Reinforcement, found: dict[int, int]) -> dict[str, str]:
    """Classes whose images that were found all had one other class, which is no class of the source's any more."""
    if source.classes is None or reinforcement.card.keeps_teachers_classes:
        return {}
    stored, pairs = reinforcement.classes, Counter[tuple[str, str]]()
    for index, row in found.items():
        now, was = int(source.labels[index]), int(reinforcement.hard_labels[row])
        if now >= 0 and was >= 0:
            pairs[source.classes[now], stored[was]] += 1
    once = Counter(now for now, _ in pairs)
    return {now: was for now, was in pairs if once[now] == 1 and was not in source.classes}

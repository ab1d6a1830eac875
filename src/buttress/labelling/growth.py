"""How a labelling joins what is already in the folder: an interrupted start, or a finished reinforcement to add to.

What is taken over proves itself: a part by its checksums, its settings and the ids of its rows; a block likewise
(block.py). So nothing has to be remembered about an interrupted start, and whatever does not fit is labelled again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import LabellingError, SourceError, StoreError
from buttress.labelling.identity import Identity
from buttress.labelling.plan import Rectangle, row_spans
from buttress.sources import Source, fingerprint
from buttress.sources.identity import id_hashes
from buttress.store.card import PartEntry, SourceInfo
from buttress.store.card_file import CARD_NAME
from buttress.store.part import Part, read_part_info
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.store.writer import existing_parts, remove_leftovers

WORK = ".work"


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What is there and what it is to become.

    Args:
        before: the finished reinforcement that is added to; none for a first labelling.
        parts: the parts that are taken over.
        spans: every block of rows, `[start, stop)`.
        order: source index of every row, `[rows]`; -1 = the row's sample is not in this source.
        views: V, when finished.
        info: what the card will say of the source.
        hashes: id hash of every row, `[rows]`.
        contents: content hash of every row in `parts`, `[rows]`; 0 = not known, or not decodable.
        skipped: ids of rows in `parts` that could not be decoded.
    """

    before: Reinforcement | None
    parts: list[PartEntry]
    spans: list[tuple[int, int]]
    order: NDArray[np.int64]
    views: int
    info: SourceInfo
    hashes: NDArray[np.uint64]
    contents: NDArray[np.uint64]
    skipped: set[str]

    @property
    def finished(self) -> bool:
        """Whether the card there says all of it already."""
        card = None if self.before is None else self.before.card
        return card is not None and (card.views, card.source.count, list(card.parts)) == (
            self.views,
            len(self.order),
            self.parts,
        )

    def areas(self) -> list[tuple[int, Rectangle]]:
        """Row block and rectangle of each part that is taken over."""
        return [(part.row_block, Rectangle(*part.rows, *part.views)) for part in self.parts]


def plan_growth(source: Source, identity: Identity, views: int, out: Path) -> Growth:
    """Look at `out` and decide what rows and views it will have. Only what no card knows is removed.

    Raises:
        LabellingError: it was made with other settings, or of other images that cannot get more views.
        SourceError: two samples with one hash.
    """
    hashes_N = _unique_hashes(source)
    before = open_reinforcement(out) if (out / CARD_NAME).exists() else None
    if before is None:
        order, hashes, views_then = np.arange(len(source)), hashes_N, views
    else:
        _refuse_other_settings(out, identity, Identity.stored(before.card))
        order, hashes = _row_order(source, before, hashes_N, views)
        views_then = max(views, before.views)
    there = [] if before is None else [part.rows for part in before.card.parts if part.views[0] == 0]
    spans = row_spans(there, len(order))
    parts, contents = _adopted(existing_parts(out, identity.digest), spans, hashes, views_then, out)
    remove_leftovers(out, parts)
    skipped = _skipped(source, before, parts, order, contents)
    info = _source_info(source, before, order)
    return Growth(
        before=before,
        parts=parts,
        spans=spans,
        order=order,
        views=views_then,
        info=info,
        hashes=hashes,
        contents=contents,
        skipped=skipped,
    )


def _unique_hashes(source: Source) -> NDArray[np.uint64]:
    hashes_N = id_hashes(source.ids)
    order = np.argsort(hashes_N, kind="stable")
    twins = np.flatnonzero(hashes_N[order][1:] == hashes_N[order][:-1])
    if len(twins):
        first, second = (source.ids[int(order[twins[0] + i])] for i in (0, 1))
        raise SourceError(f"{first} and {second} have the same 64-bit id hash; rename one of them")
    return hashes_N


def _refuse_other_settings(out: Path, now: Identity, was: Identity) -> None:
    if now.digest != was.digest:
        raise LabellingError(
            f"{out}: was made with other settings ({', '.join(now.differences(was))} differ); "
            "use the same to add to it, or another --out"
        )


def _row_order(
    source: Source, before: Reinforcement, hashes_N: NDArray[np.uint64], views: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Source index and id hash of every row: the rows that exist, then what is new, in the source's order."""
    if fingerprint(source) == before.card.source.fingerprint:
        return np.arange(len(source)), hashes_N
    try:
        rows_N, stored = before.rows_of(hashes_N), before.id_hashes
    except StoreError as failure:
        raise LabellingError(
            f"{before.path}: what it says of its samples is damaged, and the images are no longer those it was made "
            f"of, so it cannot be mended; label anew into another --out ({failure})"
        ) from failure
    order = np.full(before.rows, -1, np.int64)
    order[rows_N[rows_N >= 0]] = np.flatnonzero(rows_N >= 0)
    gone = int((order < 0).sum())
    if gone and views > before.views:
        raise LabellingError(
            f"{before.path}: {gone:,} of its {before.rows:,} samples are not in {source.uri}, so they cannot get more "
            "views; give the whole source"
        )
    fresh = np.flatnonzero(rows_N < 0)
    return np.concatenate([order, fresh]), np.concatenate([stored, hashes_N[fresh]])


def _adopted(
    found: list[PartEntry], spans: list[tuple[int, int]], hashes: NDArray[np.uint64], views: int, out: Path
) -> tuple[list[PartEntry], NDArray[np.uint64]]:
    """The parts that hold just these rows, and the content hashes of their images."""
    contents = np.zeros(len(hashes), np.uint64)
    parts: list[PartEntry] = []
    for row_block, span in enumerate(spans):
        mine = [part for part in found if part.row_block == row_block and part.rows == span]
        if not mine or mine[0].views[0] != 0:
            continue  # nothing tells whose rows they are
        first = Part(out, mine[0].name, read_part_info(out, mine[0].name)[0])
        if not np.array_equal(first.column("id_hashes"), hashes[slice(*span)]):
            continue
        contents[slice(*span)] = first.column("content_hashes")
        view = 0
        for part in mine:
            if part.views[0] >= view and part.views[1] <= views:
                parts.append(part)
                view = part.views[1]
    return parts, contents


def _skipped(
    source: Source,
    before: Reinforcement | None,
    parts: list[PartEntry],
    order: NDArray[np.int64],
    contents: NDArray[np.uint64],
) -> set[str]:
    rows = [np.arange(*part.rows) for part in parts if part.views[0] == 0]
    bad = [row for row in np.concatenate(rows) if contents[row] == 0] if rows else []
    found = {source.ids[int(order[row])] for row in bad if order[row] >= 0}
    if before is None:
        return found
    away = set(before.card.skipped) - set(source.ids)
    return found | away


def _source_info(source: Source, before: Reinforcement | None, order: NDArray[np.int64]) -> SourceInfo:
    """The fingerprint is that of the rows' order where it is known, so that an equal one needs no look-up."""
    print_, rows = fingerprint(source), len(order)
    if before is None:
        return SourceInfo(uri=source.uri, count=rows, fingerprint=print_, rows=rows)
    in_order = rows == len(source) and bool((order == np.arange(rows)).all())
    kept = before.card.source.fingerprint if rows == before.rows else ""
    return SourceInfo(
        uri=source.uri, count=rows, fingerprint=print_ if in_order else kept, rows=before.card.source.rows
    )

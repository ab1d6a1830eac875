"""How a labelling joins what is already in the folder: an interrupted start, or a finished reinforcement to add to.

What is taken over proves itself: a part by its checksums, its settings and the ids of its rows; a block likewise
(block.py). What does not fit is labelled again. Looking changes nothing on the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import LabellingError, SourceError, StoreError
from buttress.files import read_json
from buttress.labelling.identity import Identity
from buttress.labelling.plan import Rectangle, row_spans
from buttress.labelling.row_memory import MEMORY, RowMemory, read_memory
from buttress.sources import Source, fingerprint
from buttress.sources.identity import id_hashes
from buttress.store.card import PartEntry, SourceInfo
from buttress.store.card_file import CARD_NAME, read_card
from buttress.store.part import Part, read_part_info
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.store.writer import existing_parts
from buttress.terminal import note

WORK = ".work"
STARTED = "settings.json"  # in WORK: the settings of an unfinished labelling

Span = tuple[int, int]


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
        contents: content hash of every row, `[rows]`; 0 = the image could not be decoded, or not known yet.
        known: rows `[rows]` whose content hash is known.
        skipped: ids of known rows that could not be decoded.
        memory: what to keep until all is done; none but at the first labelling with a policy that mixes.
    """

    before: Reinforcement | None
    parts: list[PartEntry]
    spans: list[Span]
    order: NDArray[np.int64]
    views: int
    info: SourceInfo
    hashes: NDArray[np.uint64]
    contents: NDArray[np.uint64]
    known: NDArray[np.bool_]
    skipped: set[str]
    memory: RowMemory | None = None

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
    """Look at `out` and decide what rows and views it will have.

    Raises:
        LabellingError: it was made with other settings, or of other images.
        SourceError: two samples with one hash.
    """
    hashes_N = _unique_hashes(source)
    before = open_reinforcement(out) if (out / CARD_NAME).exists() else None
    if before is None:
        _refuse_other_start(out, identity)
    else:
        _refuse_other_settings(out, identity, Identity.stored(before.card))
    found = existing_parts(out, identity.digest)
    memory = None
    if identity.policy.mixes and before is None:
        found, memory = _remembered(found, hashes_N, out)
    there = [part for part in (found if before is None else before.card.parts) if part.views[0] == 0]
    blocks = _rows_there(there, found, out) if memory is None else _blocks_of(memory)
    if identity.policy.mixes and before is not None:
        _refuse_lost_partners(blocks, before.card.source.rows, out)
    order, hashes = _row_order(source, hashes_N, blocks, out, finished=before is not None)
    spans = row_spans([span for span, _ in blocks], len(order))
    views_then = views if before is None else max(views, before.views)
    parts, contents, known = _adopted(found, spans, hashes, views_then, out)
    if identity.policy.mixes and before is None:
        memory = memory or RowMemory.of(hashes)
        memory.recall(contents, known)
    return Growth(
        before=before,
        parts=parts,
        spans=spans,
        order=order,
        views=views_then,
        info=_source_info(source, before, order, len(order) if memory is None else len(memory.hashes_M)),
        hashes=hashes,
        contents=contents,
        known=known,
        skipped=_skipped(source, before, order, known & (contents == 0)),
        memory=memory,
    )


def _remembered(
    found: list[PartEntry], hashes_N: NDArray[np.uint64], out: Path
) -> tuple[list[PartEntry], RowMemory | None]:
    """What an interrupted start with mixed views left, and the rows it had: without those its parts are worth nothing.

    Where no part is whole and some of the rows' samples are gone, it is as well to start anew.
    """
    memory = read_memory(out / WORK / MEMORY)
    if memory is None or not (found or np.isin(memory.hashes_M, hashes_N).all()):
        return [], None
    return found, memory


def _blocks_of(memory: RowMemory) -> list[tuple[Span, NDArray[np.uint64] | None]]:
    return [(span, memory.hashes_M[slice(*span)]) for span in row_spans([], len(memory.hashes_M))]


def _refuse_lost_partners(blocks: Sequence[tuple[Span, NDArray[np.uint64] | None]], partners: int, out: Path) -> None:
    """Rows that are made again may be other images than those that the views of other rows are mixed with."""
    lost = [span for span, column in blocks if column is None and span[0] < partners]
    if lost and any(column is not None for _, column in blocks):
        raise LabellingError(
            f"{out}: rows {lost[0][0]:,} to {lost[0][1] - 1:,} are damaged, and views of all rows are mixed with their "
            "images; label anew into another --out"
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


def teachers_there(out: Path) -> list[dict[str, Any]] | None:
    """What a reinforcement, or an unfinished one, says of its teachers: nothing, if it is of an older form. None where
    there is nothing to go on with."""
    if (out / CARD_NAME).exists():
        return [dict(said) for said in read_card(out).teachers]
    started = out / WORK / STARTED
    if started.exists():
        return list(read_json(started, LabellingError).get("teachers", ()))
    return [] if any(out.glob("part-*.json")) else None


def _refuse_other_start(out: Path, identity: Identity) -> None:
    """An unfinished labelling is hours of work: a typo in a flag must not throw it away."""
    started = out / WORK / STARTED
    digests = {read_json(started, LabellingError).get("settings")} if started.exists() else set()
    for path in out.glob("part-*.json"):
        try:
            digests.add(read_part_info(out, path.stem)[0].settings)
        except StoreError:
            continue  # torn: it will be written again
    if digests - {identity.digest}:
        raise LabellingError(
            f"{out}: holds an unfinished labelling with other settings; give those to go on with it, or delete it"
        )


def _rows_there(
    firsts: Sequence[PartEntry], found: Sequence[PartEntry], out: Path
) -> list[tuple[Span, NDArray[np.uint64] | None]]:
    """Blocks of rows that exist, one after the other, with the id hashes of each; none where its part is damaged."""
    whole = {part.name for part in found}
    blocks: list[tuple[Span, NDArray[np.uint64] | None]] = []
    for number, part in enumerate(firsts):
        if part.row_block != number or part.rows[0] != (blocks[-1][0][1] if blocks else 0):
            break  # without a card, what follows a missing block belongs to nobody knows whom
        column = (
            Part(out, part.name, read_part_info(out, part.name)[0]).column("id_hashes") if part.name in whole else None
        )
        blocks.append((part.rows, column))
    return blocks


def _row_order(
    source: Source,
    hashes_N: NDArray[np.uint64],
    blocks: Sequence[tuple[Span, NDArray[np.uint64] | None]],
    out: Path,
    *,
    finished: bool,
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Source index and id hash of every row: the rows that exist, then what is new, in the source's order.

    The rows of a damaged block are all made again, so they may be any samples that no other block has.
    """
    rows = blocks[-1][0][1] if blocks else 0
    hashes = np.zeros(rows, np.uint64)
    intact = np.zeros(rows, bool)
    for span, column in blocks:
        if column is not None:
            hashes[slice(*span)], intact[slice(*span)] = column, True
    order = np.where(intact, _index_of(hashes, hashes_N), -1)
    free = np.flatnonzero(~np.isin(hashes_N, hashes[intact]))
    holes = np.flatnonzero(~intact)
    away = int((order[intact] < 0).sum()) + max(0, len(holes) - len(free))
    if rows and (away == rows or (away and not finished) or len(free) < len(holes)):
        what = "all" if away == rows else f"{away:,}"
        raise LabellingError(
            f"{out}: was made of other images ({what} of its {rows:,} samples are not in {source.uri}); give the "
            "images it was made of, or another --out"
        )
    order[holes], hashes[holes] = free[: len(holes)], hashes_N[free[: len(holes)]]
    fresh = free[len(holes) :]
    if rows and (away or len(fresh)):
        note(f"{out}: {rows - away:,} of its {rows:,} samples are in {source.uri}; {len(fresh):,} more are new")
    return np.concatenate([order, fresh]), np.concatenate([hashes, hashes_N[fresh]])


def _index_of(wanted: NDArray[np.uint64], hashes_N: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each of `wanted` stands in `hashes_N`; -1 = nowhere."""
    sorting = np.argsort(hashes_N, kind="stable")
    places = sorting[np.minimum(np.searchsorted(hashes_N, wanted, sorter=sorting), len(hashes_N) - 1)]
    return np.where(hashes_N[places] == wanted, places, -1)


def _adopted(
    found: Sequence[PartEntry], spans: Sequence[Span], hashes: NDArray[np.uint64], views: int, out: Path
) -> tuple[list[PartEntry], NDArray[np.uint64], NDArray[np.bool_]]:
    """The parts that hold just these rows, the content hashes of their images, and for which rows these are known."""
    contents, known = np.zeros(len(hashes), np.uint64), np.zeros(len(hashes), bool)
    parts: list[PartEntry] = []
    for row_block, span in enumerate(spans):
        mine = [part for part in found if part.row_block == row_block and part.rows == span]
        if not mine or mine[0].views[0] != 0:
            continue  # nothing tells whose rows they are
        first = Part(out, mine[0].name, read_part_info(out, mine[0].name)[0])
        if not np.array_equal(first.column("id_hashes"), hashes[slice(*span)]):
            continue
        contents[slice(*span)], known[slice(*span)] = first.column("content_hashes"), mine[0].views[1] <= views
        view = 0
        for part in mine:
            if part.views[0] >= view and part.views[1] <= views:
                parts.append(part)
                view = part.views[1]
    return parts, np.where(known, contents, 0).astype(np.uint64), known


def _skipped(
    source: Source, before: Reinforcement | None, order: NDArray[np.int64], bad: NDArray[np.bool_]
) -> set[str]:
    """Ids of rows that could not be decoded; of samples that are away, those that the card names."""
    here = {source.ids[int(index)] for index in order[bad] if index >= 0}
    away = set() if before is None else set(before.card.skipped) - set(source.ids)
    return here | away


def _source_info(source: Source, before: Reinforcement | None, order: NDArray[np.int64], partners: int) -> SourceInfo:
    """The fingerprint is that of the rows' order where it is known, so that an equal one needs no look-up."""
    print_, rows = fingerprint(source), len(order)
    in_order = rows == len(source) and bool((order == np.arange(rows)).all())
    if before is None:
        return SourceInfo(uri=source.uri, count=rows, fingerprint=print_ if in_order else "", rows=partners)
    kept = before.card.source.fingerprint if rows == before.rows else ""
    return SourceInfo(
        uri=source.uri, count=rows, fingerprint=print_ if in_order else kept, rows=before.card.source.rows
    )

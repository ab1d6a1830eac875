"""How a labelling joins what is already in the folder: an interrupted start, or a finished reinforcement to add to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import LabellingError, SourceError
from buttress.files import read_json, write_json
from buttress.labelling.identity import Identity
from buttress.sources import Source, fingerprint
from buttress.sources.identity import id_hashes
from buttress.store.card import PartEntry, SourceInfo
from buttress.store.card_file import CARD_NAME
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.store.writer import existing_parts, remove_leftovers

WORK = ".work"


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What is there and what it is to become.

    Args:
        before: the finished reinforcement that is added to; none for a first labelling.
        parts: the parts that are whole.
        order: source index of every row, `[rows]`; -1 = the row's sample is not in this source.
        views: V, when finished.
        info: what the card will say of the source.
        hashes: id hash of every row, `[rows]`.
    """

    before: Reinforcement | None
    parts: list[PartEntry]
    order: NDArray[np.int64]
    views: int
    info: SourceInfo
    hashes: NDArray[np.uint64]


def plan_growth(source: Source, identity: Identity, views: int, out: Path) -> Growth:
    """Look at `out` and decide what rows and views it will have.

    Raises:
        LabellingError: it was made with other settings, or other images than an interrupted start had.
        SourceError: two samples with one hash.
    """
    hashes_N = _unique_hashes(source)
    print_ = fingerprint(source)
    if not (out / CARD_NAME).exists():
        info = SourceInfo(uri=source.uri, count=len(source), fingerprint=print_, rows=len(source))
        _check_interrupted(out, identity, print_)
        parts = existing_parts(out, identity.digest)
        remove_leftovers(out, parts)
        return Growth(before=None, parts=parts, order=np.arange(len(source)), views=views, info=info, hashes=hashes_N)
    before = open_reinforcement(out)
    _refuse_other_settings(out, identity, Identity.stored(before.card))
    _check_interrupted(out, identity, print_)
    order, hashes = _row_order(source, before, hashes_N, views, out)
    parts = [part for part in existing_parts(out, identity.digest) if part.rows[1] <= len(order)]
    in_order = len(order) == len(source) and bool((order == np.arange(len(order))).all())
    info = SourceInfo(
        uri=source.uri,
        count=len(order),
        fingerprint=print_ if in_order else before.card.source.fingerprint if len(order) == before.rows else "",
        rows=before.card.source.rows,
    )
    return Growth(before=before, parts=parts, order=order, views=max(views, before.views), info=info, hashes=hashes)


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


def _check_interrupted(out: Path, identity: Identity, print_: str) -> None:
    """Blocks of an earlier start belong to the same rows only where images and settings are still the same."""
    plan, now = out / WORK / "plan.json", {"settings": identity.digest, "source": print_}
    if plan.exists():
        was = read_json(plan, LabellingError)
        if was != now:
            same_settings = isinstance(was, dict) and was.get("settings") == now["settings"]
            what = "the images have" if same_settings else "settings or teacher have"
            raise LabellingError(
                f"{out}: {what} changed since this labelling was interrupted; put them back, or delete {plan.parent} "
                "and what else the interrupted start left, and start anew"
            )
        return
    plan.parent.mkdir(parents=True, exist_ok=True)
    write_json(plan, now)


def _row_order(
    source: Source, before: Reinforcement, hashes_N: NDArray[np.uint64], views: int, out: Path
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Source index and id hash of every row: the rows that exist, then what is new, in the source's order."""
    rows_N = before.rows_of(hashes_N)
    order = np.full(before.rows, -1, np.int64)
    order[rows_N[rows_N >= 0]] = np.flatnonzero(rows_N >= 0)
    gone = int((order < 0).sum())
    if gone and views > before.views:
        raise LabellingError(
            f"{out}: {gone:,} of its {before.rows:,} samples are not in {source.uri}, so they cannot get more views; "
            "give the whole source"
        )
    fresh = np.flatnonzero(rows_N < 0)
    return np.concatenate([order, fresh]), np.concatenate([before.id_hashes, hashes_N[fresh]])

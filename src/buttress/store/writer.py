"""Writing a reinforcement: parts, each whole or absent, then index and probes, then the card.

Nothing that exists is changed: more views are more parts, more rows are more row blocks; only the card and what stands
beside it are written anew. A crash at any point leaves what was finished before, and the same call goes on from there.

Shapes: V views, N rows, S bytes a record, P probe views, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.files import json_bytes, write_atomic
from buttress.store.card import TRUTH, Card, PartEntry
from buttress.store.card_file import CARD_NAME
from buttress.store.part import COLUMNS, MAX_ROWS, PART_NAME, Part, PartInfo, part_name, plane_crc, read_part_info
from buttress.store.probes import PROBES_NAME, probes_bytes
from buttress.store.rows import INDEX_NAME, index_bytes
from buttress.store.tensors import pack_tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class PartColumns:
    """What the part of view 0 holds besides labels.

    Args:
        id_hashes: uint64 `[N]`, of the sample ids.
        hard_labels: int32 `[N]`, -1 = none.
        content_hashes: uint64 `[N]`, of the images' bytes; 0 = could not be decoded, and its records are absent.
    """

    id_hashes: NDArray[np.uint64]
    hard_labels: NDArray[np.int32]
    content_hashes: NDArray[np.uint64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By the names they have in the file."""
        columns: tuple[NDArray[Any], ...] = (self.id_hashes, self.hard_labels, self.content_hashes)
        return {
            name: np.ascontiguousarray(column, COLUMNS[name]) for name, column in zip(COLUMNS, columns, strict=True)
        }


def write_part(
    folder: Path,
    *,
    row_block: int,
    first_row: int,
    first_view: int,
    labels_VNS: NDArray[np.uint8],
    columns: PartColumns | None,
    settings_digest: str,
    truth_VN: NDArray[np.uint8] | None = None,
) -> PartEntry:
    """Write a part and then its JSON, each whole or not at all.

    Args:
        folder: of the reinforcement; must exist.
        row_block: ordinal of the block of rows.
        first_row, first_view: where the rectangle begins.
        labels_VNS: records `[V, N, stride]`, at most 65,536 rows.
        columns: for the part of view 0, none for others.
        settings_digest: `Card.settings_digest`.
        truth_VN: codes `[V, N]` of the hard labels' probabilities (`log8`), 0 where there is none; none = not stored.

    Returns:
        What the card says of it.
    """
    views, rows, _ = labels_VNS.shape
    assert 1 <= rows <= MAX_ROWS, f"{rows} rows in a part"
    assert (columns is not None) == (first_view == 0), "columns belong to the part of view 0"
    of_views = {"labels": np.ascontiguousarray(labels_VNS)}
    if truth_VN is not None:
        assert truth_VN.shape == (views, rows) and truth_VN.dtype == np.uint8, (truth_VN.shape, truth_VN.dtype)
        of_views[TRUTH] = np.ascontiguousarray(truth_VN)
    of_rows = columns.arrays() if columns else {}
    arrays: dict[str, NDArray[Any]] = {**of_views, **of_rows}
    sums = {name: (plane_crc(name, first_row, 0, array),) for name, array in of_rows.items()} | {
        name: tuple(plane_crc(name, first_row, first_view + v, array[v]) for v in range(views))
        for name, array in of_views.items()
    }
    name = part_name(row_block, first_view)
    data, header_sha256 = pack_tensors(arrays, {"part": f"{name} {settings_digest}"})
    write_atomic(folder / f"{name}.safetensors", data)
    info = PartInfo(
        rows=(first_row, first_row + rows),
        views=(first_view, first_view + views),
        settings=settings_digest,
        length=len(data),
        header_sha256=header_sha256,
        crc32=sums,
    )
    text = json_bytes(info.to_json())
    write_atomic(folder / f"{name}.json", text)
    return PartEntry(name=name, rows=info.rows, views=info.views, sha256=hashlib.sha256(text).hexdigest())


def existing_parts(folder: Path, settings_digest: str) -> list[PartEntry]:
    """The parts in `folder` that are whole and of these settings, in the card's order; every checksum is checked.

    All others do not exist: they may be overwritten, or removed by `remove_leftovers`.
    """
    entries = []
    for path in sorted(folder.glob("part-*.json")):
        if not PART_NAME.fullmatch(path.stem):
            continue
        try:
            info, sha256 = read_part_info(folder, path.stem)
            whole = info.settings == settings_digest and not any(Part(folder, path.stem, info).check())
        except StoreError:
            continue
        if whole and path.stem == part_name(int(path.stem[5:10]), info.views[0]):
            entries.append(PartEntry(name=path.stem, rows=info.rows, views=info.views, sha256=sha256))
    return sorted(entries, key=lambda entry: (entry.row_block, entry.views))


def remove_leftovers(folder: Path, keep: Iterable[PartEntry]) -> list[Path]:
    """Remove half-written files and parts that are not in `keep`; returns them."""
    kept = {entry.name for entry in keep}
    found = [path for path in sorted(folder.glob("part-*")) if PART_NAME.fullmatch(path.stem) and path.stem not in kept]
    found += sorted(folder.glob(".*.tmp"))
    for path in found:
        path.unlink(missing_ok=True)
    return found


def is_ours(name: str) -> bool:
    """Whether a file of this name may lie in a reinforcement, or in one that is not finished."""
    return name in (CARD_NAME, INDEX_NAME, PROBES_NAME) or PART_NAME.fullmatch(Path(name).stem) is not None


def write_probes(folder: Path, probes_PHWC: NDArray[np.uint8]) -> str:
    """Write the probe views `[P, H, W, 3]` uint8; returns the SHA-256 that the card's `Probes` wants."""
    data = probes_bytes(probes_PHWC)
    write_atomic(folder / PROBES_NAME, data)
    return hashlib.sha256(data).hexdigest()


def write_index(folder: Path, id_hashes_N: NDArray[np.uint64]) -> None:
    """Write the rows in order of their id hashes, from the hashes of all rows.

    Raises:
        StoreError: two rows have one hash.
    """
    write_atomic(folder / INDEX_NAME, index_bytes(id_hashes_N))


def write_card(folder: Path, card: Card) -> None:
    """Write the card: from now on the folder is a reinforcement. Parts, probes and index must be there."""
    write_atomic(folder / CARD_NAME, json_bytes(card.to_json()))

"""From id hashes to rows: `index.safetensors`, derived from the parts and checked against them whenever it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.store.damage import DamageError, read_regular
from buttress.store.tensors import map_tensors, pack_tensors

INDEX_NAME: Final = "index.safetensors"


def rows_by_hash(id_hashes_N: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The rows `[N]` in ascending order of their id hashes.

    Raises:
        StoreError: two rows have one hash.
    """
    order_N = np.argsort(id_hashes_N, kind="stable").astype(np.uint32)
    if not _is_index(order_N, id_hashes_N):
        twins = np.flatnonzero(np.diff(id_hashes_N[order_N].astype(np.uint64)) == 0)[0]
        raise StoreError(f"rows {order_N[twins]} and {order_N[twins + 1]} have the same id hash; ids must be unique")
    return order_N


def index_bytes(id_hashes_N: NDArray[np.uint64]) -> bytes:
    """What `index.safetensors` holds for these rows."""
    data, _ = pack_tensors({"rows": rows_by_hash(id_hashes_N)}, {"format": "rows by ascending id hash"})
    return data


def read_index(folder: Path, id_hashes_N: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The rows in order of their id hashes, from the file; sorted anew where it is missing, damaged or out of date.

    An order in which hashes ascend strictly is the only right one, so the file needs no checksum.
    """
    try:
        order_N = map_tensors(folder / INDEX_NAME).arrays.get("rows")
    except DamageError:
        order_N = None
    if order_N is not None and _is_index(order_N, id_hashes_N):
        return order_N
    return rows_by_hash(id_hashes_N)


def index_is_whole(folder: Path, id_hashes_N: NDArray[np.uint64]) -> bool:
    """Whether the file is just what `index_bytes` gives for these rows."""
    expected = index_bytes(id_hashes_N)
    try:
        return read_regular(folder / INDEX_NAME, len(expected)) == expected
    except DamageError:
        return False


def _is_index(order_N: NDArray[np.uint32], id_hashes_N: NDArray[np.uint64]) -> bool:
    if order_N.dtype != np.uint32 or order_N.shape != id_hashes_N.shape or (order_N >= len(id_hashes_N)).any():
        return False
    sorted_N = id_hashes_N[order_N]
    return bool((sorted_N[1:] > sorted_N[:-1]).all())

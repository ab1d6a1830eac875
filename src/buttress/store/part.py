"""A part: one rectangle rows x views in a safetensors file, and the JSON written after it that makes it exist.

Shapes: V views, N rows, S bytes a record. A *plane* is what is checked at once: `labels` of one view, or a column.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.files import parse_json
from buttress.store.damage import DamageError, read_regular
from buttress.store.schema import MAX_COUNT, check_count, check_keys, check_range, check_sha256
from buttress.store.tensors import Tensors, map_tensors

PART_VERSION: Final = 1
MAX_ROWS: Final = 65_536
PART_NAME: Final = re.compile(r"part-[0-9]{5}-v(?:[0-9]{4}|[1-9][0-9]{4,9})")
COLUMNS: Final[dict[str, np.dtype[Any]]] = {
    "id_hashes": np.dtype("<u8"),
    "hard_labels": np.dtype("<i4"),
    "content_hashes": np.dtype("<u8"),
}
"""What the part of view 0 also holds, one element per row."""

_MEND = (
    "run buttress verify {folder}; to mend it, delete {name}.safetensors and {name}.json and run the same "
    "buttress reinforce command again"
)
_MAX_JSON_BYTES = 64 * 1024 * 1024


def part_name(row_block: int, first_view: int) -> str:
    """Name of a part, without its ending."""
    return f"part-{row_block:05d}-v{first_view:04d}"


def plane_crc(field: str, first_row: int, view: int, plane: NDArray[Any]) -> int:
    """CRC-32 of a plane's bytes, going on from that of its name: so a plane in another's place is found out."""
    salt = f"{field} {first_row} {view}".encode()
    return zlib.crc32(np.ascontiguousarray(plane).data, zlib.crc32(salt))


@dataclass(frozen=True, kw_only=True, slots=True)
class PartInfo:
    """What a part's JSON says.

    Args:
        rows, views: half-open ranges.
        settings: digest of the settings that decided its bytes.
        length: bytes of the safetensors file.
        header_sha256: of everything before its first tensor.
        crc32: by tensor, one per plane: every view's for those per view, one for a column.
    """

    rows: tuple[int, int]
    views: tuple[int, int]
    settings: str
    length: int
    header_sha256: str
    crc32: Mapping[str, tuple[int, ...]]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "version": PART_VERSION,
            "rows": list(self.rows),
            "views": list(self.views),
            "settings": self.settings,
            "length": self.length,
            "header_sha256": self.header_sha256,
            "crc32": {name: list(sums) for name, sums in self.crc32.items()},
        }


def read_part_info(folder: Path, name: str) -> tuple[PartInfo, str]:
    """A part's JSON, checked, and the SHA-256 of its bytes.

    Raises:
        StoreError: missing or not one of ours.
    """
    path = folder / f"{name}.json"
    data = read_regular(path, _MAX_JSON_BYTES)
    try:
        return _info_from_json(parse_json(data, "JSON", StoreError)), hashlib.sha256(data).hexdigest()
    except StoreError as failure:
        raise damaged(path, name, "file", str(failure)) from failure


def _info_from_json(value: Any) -> PartInfo:
    kinds: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("version", "length"), int),
        **dict.fromkeys(("rows", "views"), list),
        **dict.fromkeys(("settings", "header_sha256"), str),
        "crc32": dict,
    }
    check_keys(value, "part", kinds)
    if value["version"] != PART_VERSION:
        raise StoreError(f"part version {value['version']}; this buttress reads {PART_VERSION}")
    sums = {}
    for name, items in value["crc32"].items():
        if not isinstance(items, list):
            raise StoreError(f"crc32 of {name[:80]!r}: not a list")
        sums[name] = tuple(check_count(item, f"crc32 of {name[:80]!r}", high=MAX_COUNT) for item in items)
    return PartInfo(
        rows=check_range(value["rows"], "rows"),
        views=check_range(value["views"], "views"),
        settings=check_sha256(value["settings"], "settings"),
        length=check_count(value["length"], "length", high=2**63 - 1),
        header_sha256=check_sha256(value["header_sha256"], "header_sha256"),
        crc32=sums,
    )


class Part:
    """An open part. Opening checks its JSON and header; `plane` and `column` check a checksum the first time.

    Args:
        folder: the reinforcement.
        name: of the part.
        info: its JSON.

    Raises:
        DamageError: the safetensors file is not the one that the JSON was written after.
    """

    def __init__(self, folder: Path, name: str, info: PartInfo) -> None:
        self.path, self.name, self.info = folder / f"{name}.safetensors", name, info
        tensors = self._map()
        self._arrays = tensors.arrays
        self._checked: set[tuple[str, int]] = set()
        for field, array in self._arrays.items():
            self._check_shape(field, array)

    def _map(self) -> Tensors:
        size = self.path.stat().st_size if self.path.is_file() else None
        if size is not None and size != self.info.length:
            raise self._damage("file", f"{size:,} bytes long, but {self.info.length:,} were written")
        tensors = map_tensors(self.path)
        if tensors.header_sha256 != self.info.header_sha256:
            raise self._damage("header", "changed since it was written")
        if tensors.arrays.keys() != self.info.crc32.keys():
            raise self._damage("header", "its tensors are not those that have checksums")
        return tensors

    def _check_shape(self, field: str, array: NDArray[Any]) -> None:
        rows, views = self.info.rows[1] - self.info.rows[0], self.info.views[1] - self.info.views[0]
        sums = len(self.info.crc32[field])
        per_view = array.shape[:2] == (views, rows) and sums == views
        per_row = array.shape[:1] == (rows,) and sums == 1
        right_column = field not in COLUMNS or (array.dtype == COLUMNS[field] and array.shape == (rows,))
        if not (right_column and (per_row if field in COLUMNS else per_view or per_row)):
            raise self._damage("header", f"{field[:80]!r} has shape {array.shape} for {rows} rows x {views} views")

    def labels(self, stride: int) -> NDArray[np.uint8]:
        """The whole rectangle of records `[V, N, stride]`, not checked."""
        array = self._array("labels")
        if array.dtype != np.uint8 or array.shape != (array.shape[0], self.info.rows[1] - self.info.rows[0], stride):
            raise self._damage("header", f"labels of shape {array.shape}; records are {stride} bytes")
        return array

    def plane(self, view: int, stride: int) -> NDArray[np.uint8]:
        """The records `[N, stride]` of one view.

        Raises:
            DamageError: its checksum does not fit.
        """
        plane: NDArray[np.uint8] = self.labels(stride)[view - self.info.views[0]]
        self._check("labels", view, plane, self.info.crc32["labels"][view - self.info.views[0]])
        return plane

    def numbers(self, field: str, view: int) -> NDArray[np.uint8]:
        """A byte per row `[N]` of one view: truth.

        Raises:
            DamageError: it is missing, or its checksum does not fit.
        """
        array, first = self._array(field), self.info.views[0]
        if array.dtype != np.uint8 or array.shape != (
            self.info.views[1] - first,
            self.info.rows[1] - self.info.rows[0],
        ):
            raise self._damage(
                "header", f"{field} is {array.dtype} of shape {array.shape}, not a byte per row and view"
            )
        plane: NDArray[np.uint8] = array[view - first]
        self._check(field, view, plane, self.info.crc32[field][view - first])
        return plane

    def column(self, field: str) -> NDArray[Any]:
        """A number per row `[N]`: id_hashes, hard_labels or content_hashes; only the part of view 0 has them.

        Raises:
            DamageError: its checksum does not fit.
        """
        column = self._array(field)
        self._check(field, 0, column, self.info.crc32[field][0])
        return column

    def check(self) -> Iterator[DamageError]:
        """Read everything, whatever has been read before; gives what is damaged."""
        self._checked.clear()
        first = self.info.views[0]
        for field, array in self._arrays.items():
            sums = self.info.crc32[field]
            planes = enumerate(array, first) if len(sums) > 1 or array.ndim > 1 else [(0, array)]
            for (view, plane), expected in zip(planes, sums, strict=True):
                try:
                    self._check(field, view, plane, expected)
                except DamageError as damage:
                    yield damage

    def _array(self, field: str) -> NDArray[Any]:
        if field not in self._arrays:
            raise self._damage("header", f"{field} is missing")
        return self._arrays[field]

    def _check(self, field: str, view: int, plane: NDArray[Any], expected: int) -> None:
        if (field, view) in self._checked:
            return
        first, stop = self.info.rows
        if plane_crc(field, first, view, plane) != expected:
            what = f"plane of view {view}" if field == "labels" else f"{field} of view {view}"
            raise self._damage(f"{what}, rows {first}-{stop - 1}", "its checksum does not fit")
        self._checked.add((field, view))

    def _damage(self, place: str, what: str) -> DamageError:
        return damaged(self.path, self.name, place, what)


def damaged(path: Path, name: str, place: str, what: str) -> DamageError:
    """Damage in the part `name`, with how to mend it."""
    return DamageError(path, place, what, _MEND.format(folder=path.parent, name=name))

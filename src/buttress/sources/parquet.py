"""`parquet:FILE`: images embedded in Parquet files, in the Hugging Face layout or as a plain binary column."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.columns import COLUMN_KEYS, Columns, find_columns
from buttress.sources.identity import content_hash, content_ids
from buttress.sources.locations import split_query
from buttress.sources.parquet_layout import open_file, parquet_files, read_column, read_labels
from buttress.sources.remote import is_remote
from buttress.sources.source import NO_LABEL, Chunks, Sample, UndecodableImage, first_repeat, label_or_none, nfc

if TYPE_CHECKING:
    import pyarrow as pa

_CACHE_BYTES = 512 * 1024 * 1024


class ParquetSource:
    """Images in one or several Parquet files (a file, a folder of them, or a glob; files in sorted order).

    Ids: the `id=` column, else the paths inside the image column where all are there and unique, else hashes of the
    encoded bytes (repeats with `.1`, `.2`). Row groups are the unit of reading: a process keeps the last ones it used,
    up to 512 MiB. So reading in order is cheap at any size, and reading at random where the images fit into that;
    where they do not, or lie in a store, `chunks` says so, and a training shuffles row groups (`loading/order.py`).

    Args:
        location: path or URL, `FILE[?image=COLUMN&label=COLUMN&id=COLUMN]`; columns that are not named are found by
            their type.
        labels: False ignores the label column.

    Raises: `SourceError` where the files or columns are absent, ambiguous or do not fit.
    """

    def __init__(self, location: str, *, labels: bool = True) -> None:
        self.uri = f"parquet:{location}"
        path, chosen = split_query("parquet", location, COLUMN_KEYS)
        self._files = parquet_files(path)
        with open_file(self._files[0]) as first:
            self._columns = find_columns(first.schema_arrow, self._files[0], chosen, labels=labels)
        # row groups of all files in order: their file, their number in it, and the row at which each starts
        self._groups, self._starts, group_bytes = _row_groups(self._files, self._columns)
        self.chunks = _chunks(self._starts, group_bytes, remote=is_remote(self._files[0]))
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        if not len(self):
            raise SourceError(f"{path}: found 0 rows in {len(self._files)} Parquet files")
        self.ids = self._read_ids()
        self.classes: tuple[str, ...] | None = None
        self.labels: NDArray[np.int32] = np.full(len(self), NO_LABEL, np.int32)
        if self._columns.label is not None:
            self.labels, self.classes = read_labels(self._files, self._columns.label)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[index]
        row = int(index) % len(self)
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        data = _image_bytes(self._images(group)[row - int(self._starts[group])].as_py())
        if data is None:
            raise UndecodableImage(f"{self.uri}: {sample_id!r} has no image bytes")
        return Sample(sample_id, data, label_or_none(self.labels[index]))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}

    def _images(self, group: int) -> pa.ChunkedArray:
        """The image column of a row group, from the cache or the file."""
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        images = self._read_images(group)
        self._cache[group] = images
        while len(self._cache) > 1 and sum(held.nbytes for held in self._cache.values()) > _CACHE_BYTES:
            self._cache.popitem(last=False)
        return images

    def _read_images(self, group: int) -> pa.ChunkedArray:
        file, number = self._groups[group]
        return read_column(self._files[file], self._columns.image_bytes, number)

    def _read_ids(self) -> tuple[str, ...]:
        columns = self._columns
        if columns.id is not None:
            ids = self._texts(columns.id)
            if None in ids:
                raise SourceError(f"{self.uri}: the id column {columns.id!r} is empty in row {ids.index(None)}")
            if (repeat := first_repeat(ids)) is not None:
                raise SourceError(f"{self.uri}: the id {repeat!r} stands twice in column {columns.id!r}")
            return tuple(ids)
        if columns.image_path is not None:
            paths = self._texts(columns.image_path)
            if all(paths) and first_repeat(paths) is None:
                return tuple(paths)
        return content_ids(self._content_hashes())

    def _texts(self, column: str) -> list[Any]:
        """A column as NFC text, None where it is null."""
        return [_text(value) for file in self._files for value in read_column(file, column).to_pylist()]

    def _content_hashes(self) -> Iterator[int]:
        for group in range(len(self._groups)):
            for image in self._read_images(group):
                yield content_hash(_image_bytes(image.as_py()) or b"")


def _text(value: Any) -> str | None:
    value = value.get("path") if isinstance(value, dict) else value
    return None if value is None else nfc(str(value))


def _image_bytes(value: Any) -> bytes | None:
    return value["bytes"] if isinstance(value, dict) else value  # type: ignore[no-any-return]


def _row_groups(
    files: list[str], columns: Columns
) -> tuple[list[tuple[int, int]], NDArray[np.int64], NDArray[np.int64]]:
    """Row groups of all files [G] as (file, number in it), rows before each [G + 1], bytes of each one's images [G]."""
    groups: list[tuple[int, int]] = []
    counts, sizes = [0], []
    for number, file in enumerate(files):
        with open_file(file) as parquet:
            columns.check(parquet.schema_arrow, file)
            metadata = parquet.metadata
            leaf = _leaf(metadata, columns.image_bytes)
            for group in range(metadata.num_row_groups):
                groups.append((number, group))
                counts.append(metadata.row_group(group).num_rows)
                sizes.append(metadata.row_group(group).column(leaf).total_uncompressed_size)
    return groups, np.cumsum(counts), np.array(sizes, np.int64)


def _leaf(metadata: Any, column: str) -> int:
    """The number of a leaf column in the files' own count."""
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    return paths.index(column)


def _chunks(starts: NDArray[np.int64], group_bytes: NDArray[np.int64], *, remote: bool) -> Chunks | None:
    """Row groups as chunks, where reading them again and again would be costly."""
    if not len(group_bytes) or not (remote or group_bytes.sum() > _CACHE_BYTES):
        return None
    of = np.repeat(np.arange(len(group_bytes), dtype=np.int32), np.diff(starts))
    return Chunks(of=of, window=max(1, int(_CACHE_BYTES // max(1, group_bytes.max()))))

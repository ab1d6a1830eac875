"""Samples out of tar files: one read each from a disk, whole chunks from a store."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.remote import is_remote, read_range
from buttress.sources.source import Chunks, UndecodableImage
from buttress.sources.tar_scan import BLOCK, LINK_SIZE, Members

NO_IMAGE = -2  # stands for the size where a sample has a label and no image
MAX_IMAGE_BYTES = 256 * 1024 * 1024  # larger is no image, and reading it could exhaust the memory
CHUNK_BYTES = 4 * 1024 * 1024  # read by one request: long enough that the wait for it does not matter
_CACHE_BYTES = 256 * 1024 * 1024
_WINDOW = _CACHE_BYTES // CHUNK_BYTES
_REMEMBERED = 4 * _WINDOW  # chunks, most of them touched once and not kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Where every sample's image lies [N]: number of the archive, offset of the data, size (or code), header check."""

    archive: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    check: NDArray[np.uint32]

    @classmethod
    def of(cls, members: Sequence[Members], chosen: Sequence[Sequence[int]]) -> Rows:
        """Of the members chosen in every archive, by their numbers; -1 = no image."""

        def joined(name: str, missing: int) -> NDArray[Any]:
            # an appended last element is what -1 picks
            columns = [np.append(getattr(one, name), missing) for one in members]
            return np.concatenate([column[np.asarray(rows, int)] for column, rows in zip(columns, chosen, strict=True)])

        counts = [len(rows) for rows in chosen]
        return cls(
            archive=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            offset=joined("offsets", 0),
            size=joined("sizes", NO_IMAGE),
            check=joined("checks", 0).astype(np.uint32),
        )


class TarReader:
    """Reads images of samples by their number. It pickles without what it has cached and holds no file open.

    From a disk an image is one `pread`. From a store it is one range request, until a second image of the same chunk
    (neighbours, up to 4 MiB) is asked for: then the chunk is fetched whole, and the last 256 MiB of chunks are kept.

    Args:
        archives: absolute paths, or URLs.
        rows: where the images lie in them.
    """

    def __init__(self, archives: Sequence[str], rows: Rows) -> None:
        self._archives, self._rows = tuple(archives), rows
        self.chunks: Chunks | None = None
        self._cache: OrderedDict[int, bytes] = OrderedDict()  # empty bytes: touched once
        if any(map(is_remote, self._archives)):
            numbers, self._spans = _chunks(rows)
            self.chunks = Chunks(of=numbers, window=_WINDOW)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}

    def read(self, index: int, sample_id: str) -> bytes:
        """The bytes of an image.

        Raises:
            UndecodableImage: it is absent, a link, or too large to be one.
            SourceError: the archive cannot be read, or is another one now.
        """
        size, offset = int(self._rows.size[index]), int(self._rows.offset[index])
        archive = self._archives[self._rows.archive[index]]
        if fault := _fault(size):
            raise UndecodableImage(f"{archive}: {sample_id!r} {fault}")
        start, stop = offset - BLOCK, offset + size
        data = self._remote(index, archive, start, stop) if is_remote(archive) else _pread(archive, start, stop)
        # the header stands before the image, so whether this is still the same archive costs no read of its own
        if len(data) < stop - start or zlib.crc32(data[:BLOCK]) != int(self._rows.check[index]):
            raise SourceError(f"{archive}: has changed since it was opened (at {sample_id!r}); start again")
        return data[BLOCK:]

    def _remote(self, index: int, archive: str, start: int, stop: int) -> bytes:
        assert self.chunks is not None
        chunk = int(self.chunks.of[index])
        first, last = self._spans[chunk].tolist()
        if chunk not in self._cache:
            self._cache[chunk] = b""
            self._forget()
            return read_range(archive, start, stop)
        if not self._cache[chunk]:
            self._cache[chunk] = read_range(archive, first, last)
        self._cache.move_to_end(chunk)
        self._forget()
        return self._cache[chunk][start - first : stop - first]

    def _forget(self) -> None:
        """Drop the chunks that were used longest ago."""
        held = sum(map(len, self._cache.values()))
        while len(self._cache) > 1 and (held > _CACHE_BYTES or len(self._cache) > _REMEMBERED):
            held -= len(self._cache.popitem(last=False)[1])


def _fault(size: int) -> str | None:
    if size == LINK_SIZE:
        return "is a link inside the archive, not an image"
    if size == NO_IMAGE:
        return "has no image beside its label"
    return f"has {size:,} bytes, too many for an image" if size > MAX_IMAGE_BYTES else None


def _pread(archive: str, start: int, stop: int) -> bytes:
    try:
        descriptor = os.open(archive, os.O_RDONLY)
        try:
            return os.pread(descriptor, stop - start, start)
        finally:
            os.close(descriptor)
    except OSError as failure:
        raise SourceError(f"{archive}: cannot be read ({failure.strerror})") from failure


def _chunks(rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The chunk of every sample [N] (0 for those that cannot be read), and where each chunk begins and ends [C, 2]."""
    numbers = np.zeros(len(rows.size), np.int32)
    spans: list[list[int]] = []
    archive_before = -1
    readable = np.flatnonzero((rows.size >= 0) & (rows.size <= MAX_IMAGE_BYTES))
    for index in readable[np.lexsort((rows.offset[readable], rows.archive[readable]))].tolist():
        archive, offset = int(rows.archive[index]), int(rows.offset[index])
        start, stop = offset - BLOCK, offset + int(rows.size[index])
        # Images of a made-up index may overlap: then the end that is there already may be the further one.
        if archive == archive_before and max(stop, spans[-1][1]) - spans[-1][0] <= CHUNK_BYTES:
            spans[-1][1] = max(stop, spans[-1][1])
        else:
            spans.append([start, stop])
        numbers[index], archive_before = len(spans) - 1, archive
    return numbers, np.array(spans, np.int64).reshape(-1, 2)

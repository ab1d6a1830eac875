"""JPEGs cut into tiles by restart markers: the pixels of any box from the bytes of its tiles alone.

ITU-T T.81 (E.2.4, F.1.1.5): where a scan has restart markers every k MCUs, every stretch between two of them is coded
for itself. If k divides the MCUs of a row, these stretches are tiles of k MCUs, and those of any rectangle of tiles
make a JPEG of their own: the same header with another size, then the stretches with their markers numbered anew. Any
decoder reads it, and its pixels are those of the whole image, bit by bit, but at the rectangle's edge, where chroma is
interpolated from beyond it; so a box is cut out with a margin.

Where the tiles lie is told by a segment APP7 behind the JFIF segment: `Buttress tiles`, NUL, and the bytes of each tile
with its marker, row by row, 16 bits each, big-endian. Other readers pass over it.
"""

from __future__ import annotations

import struct
from struct import pack, pack_into, unpack_from
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from buttress.sources.header import MAX_PIXELS
from buttress.sources.source import UndecodableImage

MARGIN = 1  # pixels; chroma is interpolated from its next neighbour, which lies at most one pixel beyond the box
_TOO_NARROW = 2  # chroma samples a row, up to which libjpeg repeats them instead of interpolating (jdsample.c)
_JFIF = b"\xff\xd8\xff\xe0\x00\x10JFIF\0"
_INDEX = 20  # where the segment begins, behind JFIF's
_NAME = b"Buttress tiles\0"
_APP7, _BASELINE, _HUFFMAN, _RESTART_INTERVAL, _SCAN, _END = 0xE7, 0xC0, 0xC4, 0xDD, 0xDA, 0xD9
_RESTART = 0xD0  # the first of eight
_MAX_SEGMENT = 65_535

Pixels = NDArray[np.uint8]  # [H, W, 3]


class _Header(NamedTuple):
    """`frame`: where the height stands, which the width follows; `tile` = its (width, height) in pixels; `data`: where
    the first tile begins; `narrowest`: the image's width over that of its narrowest component."""

    width: int
    height: int
    frame: int
    tile: tuple[int, int]
    narrowest: int
    data: int

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile[0])

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile[1])


class Tiles:
    """A JPEG whose tiles are known. `Tiles.of` finds out.

    Args:
        data: the file.
        header: how it is tiled.
        starts: where each tile begins, and the end of the file, `[tiles + 1]`.
    """

    def __init__(self, data: bytes, header: _Header, starts: NDArray[np.int64]) -> None:
        self._data, self._header, self._starts = data, header, starts

    @classmethod
    def of(cls, data: bytes) -> Tiles | None:
        """The tiles of a file that has their index; none where it has none, or where its index does not fit it."""
        if data[_INDEX : _INDEX + 2] != b"\xff\xe7" or data[_INDEX + 4 : _INDEX + 4 + len(_NAME)] != _NAME:
            return None
        header = _read_header(data)
        if header is None or header.width * header.height > MAX_PIXELS:
            return None
        (length,) = unpack_from(">H", data, _INDEX + 2)
        sizes = np.frombuffer(data, ">u2", (length - 2 - len(_NAME)) // 2, _INDEX + 4 + len(_NAME))
        starts = np.empty(len(sizes) + 1, np.int64)
        starts[0] = header.data
        np.cumsum(sizes, out=starts[1:])
        starts[1:] += header.data
        fits = len(sizes) == header.columns * header.rows and starts[-1] == len(data)
        return cls(data, header, starts) if fits else None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._header.width, self._header.height

    def pixels(self, left: int, top: int, right: int, bottom: int) -> Pixels:
        """The pixels `[top:bottom, left:right]` of the decoded image, uint8 [H, W, 3]; read-only.

        Args:
            left, top, right, bottom: pixels, half-open, within the image and not empty.

        Raises:
            UndecodableImage: its tiles cannot be decoded.
        """
        width, height = self.size
        assert 0 <= left < right <= width and 0 <= top < bottom <= height, (left, top, right, bottom)
        columns, rows = self._needed(left, top, right, bottom)
        x, y = columns[0] * self._header.tile[0], rows[0] * self._header.tile[1]
        pixels_HWC = decode_jpeg(self._assembled(columns, rows))
        if pixels_HWC is None:
            raise UndecodableImage("damaged JPEG: a tile cannot be decoded")
        return pixels_HWC[top - y : bottom - y, left - x : right - x]

    def _needed(self, left: int, top: int, right: int, bottom: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Columns and rows of tiles, half-open, that hold a box and its margin."""
        header, (tile_width, tile_height) = self._header, self._header.tile
        first, upper = max(left - MARGIN, 0) // tile_width, max(top - MARGIN, 0) // tile_height
        last = min(right + MARGIN - 1, header.width - 1) // tile_width + 1
        lower = min(bottom + MARGIN - 1, header.height - 1) // tile_height + 1
        # A rectangle at the right edge may be so narrow that its chroma would be repeated, unlike the whole image's.
        shown = min(last * tile_width, header.width) - first * tile_width
        if first and -(-shown // header.narrowest) <= _TOO_NARROW:
            first -= 1
        return (first, last), (upper, lower)

    def _assembled(self, columns: tuple[int, int], rows: tuple[int, int]) -> NDArray[np.uint8]:
        """A JPEG of these tiles alone."""
        header, (first, last), (upper, lower) = self._header, columns, rows
        shape = header.rows, header.columns
        starts = self._starts[:-1].reshape(shape)[upper:lower, first:last]
        ends = self._starts[1:].reshape(shape)[upper:lower, first:last]
        index_end = _INDEX + 2 + unpack_from(">H", self._data, _INDEX + 2)[0]
        data = header.data - index_end + _INDEX  # the index is left out
        tile_ends = np.cumsum(ends - starts) + data
        source, out = np.frombuffer(self._data, np.uint8), np.empty(tile_ends[-1], np.uint8)
        out[:_INDEX], out[_INDEX:data] = source[:_INDEX], source[index_end : header.data]
        place = data
        for start, stop in zip(starts[:, 0].tolist(), ends[:, -1].tolist(), strict=True):
            out[place : place + stop - start] = source[start:stop]
            place += stop - start
        out[tile_ends - 2] = 0xFF
        out[tile_ends - 1] = _RESTART + (np.arange(len(tile_ends)) & 7)
        out[-1] = _END
        width = min(last * header.tile[0], header.width) - first * header.tile[0]
        height = min(lower * header.tile[1], header.height) - upper * header.tile[1]
        pack_into(">HH", out.data, header.frame - index_end + _INDEX, height, width)
        return out


def with_index(data: bytes) -> bytes:
    """A JPEG with the index of its tiles; itself where it is not tiled, or has too many tiles or too large ones."""
    header = _read_header(data) if data.startswith(_JFIF) else None
    if header is None or Tiles.of(data) is not None:
        return data
    content = np.frombuffer(data, np.uint8)[header.data :]
    markers = np.flatnonzero((content[:-1] == 0xFF) & ((content[1:] & 0xF8) == _RESTART))
    sizes = np.diff(np.concatenate([[0], markers + 2, [len(content)]]))
    length = 2 + len(_NAME) + 2 * len(sizes)
    if len(sizes) != header.columns * header.rows or sizes.max() > _MAX_SEGMENT or length > _MAX_SEGMENT:
        return data
    segment = pack(">BBH", 0xFF, _APP7, length) + _NAME + sizes.astype(">u2").tobytes()
    return data[:_INDEX] + segment + data[_INDEX:]


def tile_mcus(mcus: int, most: int = 4) -> int:
    """MCUs a tile for a row of `mcus`: the largest number up to `most` that divides it. 4 are 64 pixels in 4:2:0."""
    return next(k for k in range(most, 0, -1) if mcus % k == 0)


def decode_jpeg(data: NDArray[np.uint8]) -> Pixels | None:
    """RGB pixels as stored, not turned; None where OpenCV gives up."""
    import cv2

    try:
        return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)  # type: ignore[return-value]
    except cv2.error:
        return None


def _read_header(data: bytes) -> _Header | None:
    """None where the file is not baseline, has several scans, or restart markers at no fixed places of its rows."""
    frame = interval = 0
    sampling: list[int] = []
    position, marker = 2, 0
    try:
        while marker != _SCAN:
            fill, marker, length = unpack_from(">BBH", data, position)
            if fill != 0xFF or (marker & 0xF0 == 0xC0 and marker not in (_BASELINE, _HUFFMAN)):
                return None  # no marker at all, or progressive, lossless, arithmetic
            if marker == _BASELINE:
                frame, sampling = position + 5, [data[position + 11 + 3 * n] for n in range(data[position + 9])]
            elif marker == _RESTART_INTERVAL:
                (interval,) = unpack_from(">H", data, position + 4)
            elif marker == _SCAN and data[position + 4] != len(sampling):
                return None
            position += 2 + length
        height, width = unpack_from(">HH", data, frame)
    except (struct.error, IndexError):
        return None
    if not (frame and interval and height and width and all(factors >> 4 and factors & 15 for factors in sampling)):
        return None
    # an MCU of one component alone is one block, whatever its factors
    across = [factors >> 4 for factors in sampling] if len(sampling) > 1 else [1]
    down = [factors & 15 for factors in sampling] if len(sampling) > 1 else [1]
    if -(-width // (8 * max(across))) % interval:
        return None
    tile = interval * 8 * max(across), 8 * max(down)
    return _Header(width, height, frame, tile, max(across) // min(across), position)

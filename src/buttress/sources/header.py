"""What the header of a JPEG or PNG file says, read from its markers in a few microseconds: size, kind, rotation.

Sources: ITU-T T.81 annex B (JPEG markers), PNG 3rd edition section 5 (chunks), TIFF 6.0 / CIPA DC-008 (orientation).
"""

from __future__ import annotations

import struct
from struct import unpack_from
from typing import NamedTuple

from buttress.sources.source import UndecodableImage

MAX_PIXELS = 89_478_485  # Pillow's own alarm level: 256 MB of RGB. A header that claims more is taken for a bomb.
JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
# SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset(range(0xD0, 0xD9)) | {0x00, 0x01}  # markers without a length: RSTn, SOI, stuffing, TEM
_EXIF, _SCAN, _END = 0xE1, 0xDA, 0xD9
_ORIENTATION_TAG = 0x0112
_BASELINE_OR_PROGRESSIVE = (0xC0, 0xC1, 0xC2)


class JpegHeader(NamedTuple):
    """`width`, `height` as stored; `orientation` 1..8 as in EXIF; `scan` = the offset where the first scan begins."""

    width: int
    height: int
    orientation: int
    components: int
    bits: int
    frame: int
    scan: int

    @property
    def common(self) -> bool:
        """Baseline or progressive, 8 bits, grey or three colours: what every decoder agrees on."""
        return self.frame in _BASELINE_OR_PROGRESSIVE and self.bits == 8 and self.components in (1, 3)


class PngHeader(NamedTuple):
    """`width`, `height` as stored; `orientation` 1..8 as in EXIF."""

    width: int
    height: int
    orientation: int


def read_jpeg(data: bytes) -> JpegHeader:
    """Walk the markers up to the first scan. Raises `UndecodableImage` where there is no frame or no scan."""
    frame, orientation, position, end = None, 0, 2, len(data) - 3
    while 0 <= position < end:
        if data[position] != 0xFF:  # junk between segments: decoders skip it, so do we
            position = data.find(b"\xff", position)
            continue
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _ALONE:
            position += 2
        elif marker in (_SCAN, _END):
            break
        else:
            if marker in _FRAMES and frame is None:
                frame = (marker, *_frame_at(data, position + 4))
            elif marker == _EXIF and not orientation and data[position + 4 : position + 10] == b"Exif\0\0":
                orientation = exif_orientation(data, position + 10)
            position += 2 + (data[position + 2] << 8 | data[position + 3])
    if frame is None or not 0 <= position < end or data[position + 1] != _SCAN:
        raise UndecodableImage("truncated or damaged JPEG: its header has no image")
    kind, bits, height, width, components = frame
    return JpegHeader(width, height, orientation or 1, components, bits, kind, position)


def _frame_at(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """(bits, height, width, components) of a frame header."""
    try:
        return unpack_from(">BHHB", data, offset)
    except struct.error as failure:
        raise UndecodableImage("truncated JPEG: it ends inside the frame header") from failure


def read_png(data: bytes) -> PngHeader:
    """Size from IHDR and rotation from eXIf, wherever that chunk stands. Raises `UndecodableImage`."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UndecodableImage("truncated or damaged PNG: no IHDR chunk")
    width, height = unpack_from(">II", data, 16)
    position, orientation = 33, 1
    while position + 8 <= len(data):
        length, kind = unpack_from(">I4s", data, position)
        if kind == b"eXIf":
            orientation = exif_orientation(data, position + 8)
            break
        position += length + 12
    return PngHeader(width, height, orientation)


def exif_orientation(data: bytes, start: int) -> int:
    """Orientation (1..8) of the EXIF block whose TIFF header is at `start`; 1 where it is absent or malformed."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[start : start + 4])
    if order is None:
        return 1
    try:
        directory = start + unpack_from(order + "I", data, start + 4)[0]
        (count,) = unpack_from(order + "H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = unpack_from(order + "HH", data, entry)
            if tag == _ORIENTATION_TAG:
                (value,) = unpack_from(order + ("I" if kind == 4 else "H"), data, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # a directory that leaves the file says nothing
    return 1

"""One pass over the headers of a tar file: which images and labels it holds, and where.

Written for files that nobody vouches for: it reads headers and labels alone, in bounded memory, and takes nothing
unchecked. Sources: POSIX.1-2017 "pax Interchange Format" (ustar, pax headers), the GNU tar manual "Basic Tar Format"
(long names, base-256 numbers).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.class_folders import EXTENSIONS
from buttress.sources.source import NO_LABEL, nfc

BLOCK = 512  # bytes of a header; data is padded to a multiple
LINK_SIZE = -1  # stands for the size of a link
BAD_LABEL = -2  # stands for a label that is no class number
LABEL_EXTENSIONS = (".cls", ".json")
_MAX_NAME_BYTES = 64 * 1024  # of an extended header; a path has at most 4,096
_MAX_LABEL_BYTES = {".cls": 64, ".json": 1024 * 1024}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MAX_PADDING = 64 * 1024 * 1024  # tar programs pad to some KiB
_ZEROS = bytes(BLOCK)

Read = Callable[[int, int], bytes]  # (offset, length) -> that many bytes, fewer at the end of the file


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Members:
    """Images and label files of one archive, in its order.

    Args:
        names: paths inside it, NFC, without a leading `./`; not yet known to be unique.
        offsets: where the data of each begins; its header is the block before.
        sizes: bytes; -1 = a link.
        checks: CRC-32 of each header.
        labels: what a label file says; -1 = none (so for images), -2 = no class number.
        others: how many other files there are.
    """

    names: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    checks: NDArray[np.uint32]
    labels: NDArray[np.int32]
    others: int


class _Header(NamedTuple):
    kind: bytes
    size: int
    name: bytes


def scan(read: Read, size: int, place: str) -> Members:
    """The members of an archive.

    Args:
        read: reads it.
        size: its bytes.
        place: what an error names.

    Raises: `SourceError` where it is compressed, truncated, damaged, or holds names that leave it.
    """
    _refuse_compressed(read(0, 8), place)
    found = _Found()
    position, extended = 0, _Extended()
    while (block := read(position, BLOCK)) != _ZEROS:
        header = _header(block, place, position)
        data = position + BLOCK
        if header.kind in b"xgLK":
            stored = header.size
            _refuse_truncated(data + stored, size, place, "an extended header")
            if stored > _MAX_NAME_BYTES:
                raise SourceError(f"{place}: an extended header of {stored:,} bytes at {position:,}; no tar of images")
            extended.take(header.kind, read(data, stored), place)
        else:
            header = extended.applied(header)
            name = _clean_name(header.name, place)
            # the others carry no data, whatever size they state
            stored = header.size if header.kind in b"07\0" else 0
            _refuse_truncated(data + stored, size, place, repr(name))
            if header.kind not in b"01234567\0":
                raise SourceError(f"{place}: {name!r} is a sparse or unknown kind of member; make the tar without them")
            found.add(header, name, data, zlib.crc32(block), read)
            extended = _Extended()
        position = data + -(-stored // BLOCK) * BLOCK
    _check_end(read, position, size, place)
    return found.members()


def _refuse_compressed(start: bytes, place: str) -> None:
    for magic, kind in _COMPRESSED.items():
        if start.startswith(magic):
            raise SourceError(
                f"{place}: compressed ({kind}), so no image in it can be read alone; unpack it to a plain .tar first"
            )


def _refuse_truncated(end: int, size: int, place: str, what: str) -> None:
    if end > size:
        raise SourceError(f"{place}: truncated or damaged ({what} would end at byte {end:,} of {size:,}); copy it anew")


def _check_end(read: Read, position: int, size: int, place: str) -> None:
    """After the first block of zeros there may be zeros alone: more would be members that tar programs do not show."""
    if size - position > _MAX_PADDING:
        raise SourceError(f"{place}: {size - position:,} bytes behind its end mark; make it anew")
    while position < size:
        piece = read(position, 1024 * 1024)
        if not piece or piece.count(0) != len(piece):
            raise SourceError(f"{place}: data behind its end mark (tars joined by cat?); make one tar of all")
        position += len(piece)


def _header(block: bytes, place: str, position: int) -> _Header:
    if len(block) < BLOCK:
        raise SourceError(f"{place}: truncated (no end mark at byte {position:,}) or no tar file; copy it anew")
    try:
        if not _checksum_holds(block):
            raise ValueError("checksum")
        size = _number(block[124:136])
    except ValueError as failure:
        raise SourceError(f"{place}: not a tar file, or damaged at byte {position:,}") from failure
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return _Header(block[156:157], size, prefix + b"/" + name if prefix else name)


def _checksum_holds(block: bytes) -> bool:
    """The checksum sums the header's bytes with spaces in its own place; some old programs summed signed bytes."""
    stated, rest = _number(block[148:156]), block[:148] + block[156:]
    total = sum(rest) + 8 * 32
    return stated == total or stated == total - 256 * sum(byte > 127 for byte in rest)


def _number(field: bytes) -> int:
    """An octal number, or a base-256 one where the first bit is set; ValueError where it is neither or negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip(b" ")
    if text.strip(b"01234567"):
        raise ValueError(f"not an octal number: {field!r}")
    return int(text or b"0", 8)


class _Extended:
    """What extended headers say about the next member."""

    def __init__(self) -> None:
        self.path: bytes | None = None
        self.size: int | None = None

    def take(self, kind: bytes, data: bytes, place: str) -> None:
        if kind == b"L":
            self.path = data.split(b"\0", 1)[0]
        elif kind in b"xg":
            for key, value in _pax_records(data, place):
                self._take_record(kind, key, value, place)

    def _take_record(self, kind: bytes, key: bytes, value: bytes, place: str) -> None:
        if key.startswith(b"GNU.sparse"):
            raise SourceError(f"{place}: holds sparse files; make the tar without them")
        if key not in (b"path", b"size"):
            return
        if kind == b"g":
            raise SourceError(f"{place}: a global header gives all members one {key.decode()}; no tar of images")
        if key == b"path":
            self.path = value
        elif not value.isdigit() or len(value) > 19:
            raise SourceError(f"{place}: a header says size {value[:40]!r}")
        else:
            self.size = int(value)

    def applied(self, header: _Header) -> _Header:
        size = header.size if self.size is None else self.size
        return _Header(header.kind, size, header.name if self.path is None else self.path)


def _pax_records(data: bytes, place: str) -> list[tuple[bytes, bytes]]:
    """`LENGTH KEY=VALUE\\n` records, the length counting all of it."""
    records, position = [], 0
    while position < len(data) and data[position]:
        digits, space, _ = data[position : position + 12].partition(b" ")
        stop = position + int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[position + len(digits) + 1 : stop - 1].partition(b"=")
        if not equals or not position < stop <= len(data) or data[stop - 1 : stop] != b"\n":
            raise SourceError(f"{place}: damaged extended header")
        records.append((key, value))
        position = stop
    return records


def _clean_name(raw: bytes, place: str) -> str:
    """The path as an id has it, or an error where it leaves the archive."""
    try:
        name = nfc(raw.decode())
    except UnicodeDecodeError as failure:
        raise SourceError(f"{place}: the name {raw!r} is not UTF-8, so it has no stable id; rename it") from failure
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or "\0" in name:
        raise SourceError(f"{place}: the name {name!r} is absolute, empty or leads out of the archive; not a plain tar")
    return "/".join(part for part in parts if part not in ("", "."))


class _Found:
    """The members so far."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rows: list[tuple[int, int, int, int]] = []
        self.others = 0

    def add(self, header: _Header, name: str, data: int, check: int, read: Read) -> None:
        base = name.rpartition("/")[2].lower()
        label_kind = next((ending for ending in LABEL_EXTENSIONS if base.endswith(ending)), None)
        # a name that ends in a slash is a folder of programs before POSIX; dots begin what file managers left behind
        is_file = header.kind in b"0127\0" and not header.name.endswith(b"/")
        hidden = name.startswith(".") or "/." in name
        if not is_file or hidden or not (label_kind or base.endswith(EXTENSIONS)):
            self.others += is_file
            return
        size = LINK_SIZE if header.kind in b"12" else header.size
        label = NO_LABEL
        if label_kind:
            short = 0 <= size <= _MAX_LABEL_BYTES[label_kind]
            label = _label(read(data, size), label_kind) if short else BAD_LABEL
        self.names.append(name)
        self.rows.append((data, size, check, label))

    def members(self) -> Members:
        table = np.array(self.rows, np.int64).reshape(-1, 4)
        return Members(
            names=tuple(self.names),
            offsets=table[:, 0].copy(),
            sizes=table[:, 1].copy(),
            checks=table[:, 2].astype(np.uint32),
            labels=table[:, 3].astype(np.int32),
            others=self.others,
        )


def _label(data: bytes, kind: str) -> int:
    """The class number in a label file: integer text, or `label` of a JSON object; -1 where that has none."""
    try:
        value: Any = int(data) if kind == ".cls" else _json_label(json.loads(data))
    except (ValueError, RecursionError):
        return BAD_LABEL
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and NO_LABEL <= value < 2**31 else BAD_LABEL


def _json_label(value: Any) -> Any:
    label = value.get("label") if isinstance(value, dict) else None
    return NO_LABEL if label is None else label

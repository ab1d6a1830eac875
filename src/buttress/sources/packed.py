"""`packed:DIR`: images that `buttress pack` has made small and cut into tiles, in a few large files.

A folder holds tar files of JPEGs, `part-00000.tar` and so on, which any tool reads; beside each an index,
`part-00000.safetensors`, with where its images lie, their CRC-32, labels and ids; and `packed.json`, written last.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.files import read_json
from buttress.sources.source import NO_LABEL, Sample, label_or_none

CARD: Final = "packed.json"
FORMAT: Final = 1
_COLUMNS: Final = {"offsets": np.uint64, "sizes": np.uint32, "crc32": np.uint32, "labels": np.int32}
_AGAIN = "delete it and run the same buttress pack command again"


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedPart:
    """What the card says of a part.

    Args:
        images: how many.
        sha256: of the index.
    """

    images: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedIndex:
    """Where the images of a part lie, `[N]` each.

    Args:
        offsets: uint64, in the tar file.
        sizes: uint32, bytes.
        crc32: uint32.
        labels: int32, -1 = none.
        ids: of the samples.
        digest: 32 bytes that say which images of which source it holds, and how they were packed.
        length: bytes of the tar file.
    """

    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint32]
    crc32: NDArray[np.uint32]
    labels: NDArray[np.int32]
    ids: tuple[str, ...]
    digest: bytes
    length: int

    def to_bytes(self) -> bytes:
        """A safetensors file: the columns, and as bytes the ids, each with a NUL behind it, and the digest."""
        from safetensors.numpy import save

        columns = {name: np.ascontiguousarray(getattr(self, name), kind) for name, kind in _COLUMNS.items()}
        text = "".join(f"{sample_id}\0" for sample_id in self.ids).encode()
        texts = {"ids": np.frombuffer(text, np.uint8), "digest": np.frombuffer(self.digest, np.uint8)}
        length = {"length": np.array([self.length], np.uint64)}
        return save({**columns, **texts, **length})


def part_name(number: int) -> str:
    """Name of a part, without its ending."""
    return f"part-{number:05d}"


def read_index(path: Path) -> tuple[PackedIndex, str]:
    """The index in a file, and the SHA-256 of its bytes in hex.

    Raises:
        SourceError: it is missing, or none of ours.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
        arrays = load(data)
        texts = {name: arrays.pop(name).tobytes() for name in ("ids", "digest")}
        length = int(arrays.pop("length")[0])
    except (OSError, SafetensorError, LookupError) as failure:
        raise SourceError(f"{path}: cannot be read ({failure}); {_AGAIN}") from failure
    if {name: array.dtype for name, array in arrays.items()} != {n: np.dtype(kind) for n, kind in _COLUMNS.items()}:
        raise SourceError(f"{path}: is no index of packed images; {_AGAIN}")
    ids = tuple(texts["ids"].decode(errors="replace").split("\0")[:-1])
    if {array.shape for array in arrays.values()} != {(len(ids),)}:
        raise SourceError(f"{path}: its columns are of several lengths; {_AGAIN}")
    return PackedIndex(ids=ids, digest=texts["digest"], length=length, **arrays), hashlib.sha256(data).hexdigest()


class PackedSource:
    """The images of a packed folder, in the order of the source that it was made from, with its ids and labels.

    Parts are mapped into memory when they are first read. Every image is checked against its CRC-32 when a process
    first reads it.

    Args:
        location: the folder.
        labels: False ignores the labels.

    Raises:
        SourceError: it is absent, unfinished or damaged.
    """

    def __init__(self, location: str, *, labels: bool = True) -> None:
        self.uri = f"packed:{location}"
        self._folder = os.path.abspath(os.path.expanduser(location))
        card = read_card(Path(self._folder))
        indices = [self._index(number, part) for number, part in enumerate(card.parts)]
        self._starts = np.cumsum([0, *(len(index.ids) for index in indices)])
        self._lengths = [index.length for index in indices]
        self._offsets, self._sizes, self._crc32 = (
            np.concatenate([getattr(index, name) for index in indices]) for name in ("offsets", "sizes", "crc32")
        )
        self.ids: Sequence[str] = tuple(sample_id for index in indices for sample_id in index.ids)
        self.classes = card.classes if labels else None
        self.labels: NDArray[np.int32] = np.full(len(self.ids), NO_LABEL, np.int32)
        if self.classes is not None:
            self.labels = np.concatenate([index.labels for index in indices])
            if len(self.labels) and not (self.labels.min() >= -1 and self.labels.max() < len(self.classes)):
                raise SourceError(f"{self.uri}: labels are not among its {len(self.classes)} classes")
        self._maps: dict[int, mmap.mmap] = {}
        self._checked = np.zeros(len(self.ids), bool)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[index]
        row = index % len(self)
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        offset = int(self._offsets[row])
        data = (self._maps.get(part) or self._mapped(part))[offset : offset + int(self._sizes[row])]
        if not self._checked[row]:
            if zlib.crc32(data) != int(self._crc32[row]):
                raise SourceError(f"{self._path(part)}: {sample_id!r} is damaged; {_AGAIN}")
            self._checked[row] = True
        return Sample(sample_id, data, label_or_none(self.labels[row]))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}, "_checked": np.zeros(len(self.ids), bool)}

    def _path(self, part: int) -> str:
        return os.path.join(self._folder, f"{part_name(part)}.tar")

    def _mapped(self, part: int) -> mmap.mmap:
        path = self._path(part)
        try:
            with open(path, "rb") as file:
                length = os.fstat(file.fileno()).st_size
                if length != self._lengths[part]:
                    raise SourceError(f"{path}: has {length:,} bytes and not {self._lengths[part]:,}; {_AGAIN}")
                self._maps[part] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as failure:
            raise SourceError(f"{path}: cannot be read ({failure.strerror})") from failure
        return self._maps[part]

    def _index(self, number: int, part: PackedPart) -> PackedIndex:
        path = Path(self._folder) / f"{part_name(number)}.safetensors"
        index, sha256 = read_index(path)
        if sha256 != part.sha256 or len(index.ids) != part.images:
            raise SourceError(f"{path}: is not the index that {CARD} names; {_AGAIN}")
        return index


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedCard:
    """What `packed.json` says.

    Args:
        settings: how its images were made.
        source: URI, count and fingerprint of what they were made from.
        classes: names, or none.
        parts: in order.
        skipped: ids of images that could not be decoded.
    """

    settings: Mapping[str, Any]
    source: Mapping[str, Any]
    classes: tuple[str, ...] | None
    parts: tuple[PackedPart, ...]
    skipped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @property
    def identity(self) -> tuple[Mapping[str, Any], Any]:
        """What must be alike in two packings of the same."""
        return self.settings, self.source.get("fingerprint")


def read_card(folder: Path) -> PackedCard:
    """The card of a packed folder.

    Raises:
        SourceError: there is none, or it is not one of ours.
    """
    path = folder / CARD
    if not path.exists():
        unfinished = any(folder.glob("part-*.safetensors"))
        why = "is not finished; run the same buttress pack command again" if unfinished else f"holds no {CARD}"
        raise SourceError(f"{folder}: {why if folder.is_dir() else 'no such folder'}")
    said = read_json(path, SourceError)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise SourceError(f"{path}: is no card of format {FORMAT}; this buttress reads no other")
    try:
        parts = tuple(PackedPart(**part) for part in said["parts"])
        classes = None if said["classes"] is None else tuple(map(str, said["classes"]))
        card = PackedCard(
            settings=dict(said["settings"]),
            source=dict(said["source"]),
            classes=classes,
            parts=parts,
            skipped=tuple(map(str, said["skipped"])),
        )
    except (KeyError, TypeError, ValueError) as failure:
        raise SourceError(f"{path}: is damaged ({failure}); {_AGAIN}") from failure
    if not all(type(part.images) is int for part in parts) or not parts:
        raise SourceError(f"{path}: is damaged; {_AGAIN}")
    return card

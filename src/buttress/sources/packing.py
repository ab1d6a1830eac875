"""Pack a source: every image made small and cut into tiles once, so that each later view of it decodes less.

Shapes: H W pixels.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError, SourceError
from buttress.files import json_bytes, require_own_folder, sync_folder, write_atomic, write_json
from buttress.processes import cores, run_tasks
from buttress.sources.decode import decode
from buttress.sources.identity import fingerprint
from buttress.sources.packed import CARD, PackedCard, PackedIndex, PackedPart, part_name, read_card, read_index
from buttress.sources.source import Source, UndecodableImage
from buttress.sources.tiles import tile_mcus, with_index
from buttress.terminal import note, number, progress, warn

MCU = 16  # pixels, of 4:2:0
PART_IMAGES = 8_192
_TASK_IMAGES = 32
_ENCODER = 1  # counts up when the same settings give other bytes

Pixels = NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackSettings:
    """How images are packed.

    Args:
        short_side: pixels that the shorter side is brought to; smaller images keep theirs.
        quality: of the JPEGs, 1..100.

    Raises:
        SettingsError: out of range.
    """

    short_side: int = 320
    quality: int = 90

    def __post_init__(self) -> None:
        if not 16 <= self.short_side <= 16_384:
            raise SettingsError(f"--short-side {self.short_side}: lies in 16..16384 pixels")
        if not 1 <= self.quality <= 100:
            raise SettingsError(f"--quality {self.quality}: lies in 1..100")


@dataclass(frozen=True, slots=True)
class Packed:
    """What came of packing.

    Args:
        images: how many are in the folder.
        bytes: of its tar files.
        source_bytes: of the encoded images that this call has read; 0 = none of them.
        skipped: ids that could not be decoded.
    """

    images: int
    bytes: int
    source_bytes: int
    skipped: tuple[str, ...]


def pack_image(image_HWC: Pixels, settings: PackSettings) -> bytes:
    """A baseline JPEG in 4:2:0 with an index of its tiles.

    Raises:
        UndecodableImage: a side is longer than JPEG has numbers for.
    """
    import cv2

    height, width = image_HWC.shape[:2]
    scale = settings.short_side / min(height, width)
    if scale < 1:
        width, height = max(round(width * scale), 1), max(round(height * scale), 1)
        image_HWC = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if max(width, height) > 65_500:
        raise UndecodableImage(f"{width} x {height} pixels are too many for a JPEG")
    options = [
        *(cv2.IMWRITE_JPEG_QUALITY, settings.quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
        *(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        *(cv2.IMWRITE_JPEG_RST_INTERVAL, tile_mcus(-(-width // MCU))),
    ]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR), options)
    return with_index(encoded.tobytes())


def pack_source(
    source: Source, settings: PackSettings, out: Path, *, workers: int | None = None, max_bad: float = 0.001
) -> Packed:
    """Pack `source` into the folder `out`; started again, it goes on after the last part that is whole.

    Args:
        source: the images.
        settings: how.
        out: the folder; made, or gone on with.
        workers: processes; none = one per core, 0 = this one.
        max_bad: largest share, 0..1, of images that may fail to decode; they are left out, named and counted.

    Raises:
        SourceError: too many bad images; `out` holds another packing.
        SettingsError: `out` cannot be written to, or holds files of others.
    """
    require_own_folder(out, lambda name: name == CARD or name.startswith("part-"), "a packed folder")
    return _Packing(source, settings, out, max_bad).run(cores() if workers is None else workers)


class _Packing:
    """One packing under way."""

    def __init__(self, source: Source, settings: PackSettings, out: Path, max_bad: float) -> None:
        self.source, self.settings, self.out, self.max_bad = source, settings, out, max_bad
        self.bad: list[str] = []
        self.source_bytes = 0
        self.card = PackedCard(
            settings={"short_side": settings.short_side, "quality": settings.quality, "encoder": _ENCODER},
            source={"uri": source.uri, "count": len(source), "fingerprint": fingerprint(source)},
            classes=None if source.classes is None else tuple(source.classes),
            parts=(),
            skipped=(),
        )
        if (out / CARD).exists() and read_card(out).identity != self.card.identity:
            raise SourceError(f"{out}: was packed from other images, or otherwise; name another --out")

    def run(self, workers: int) -> Packed:
        """Do what is missing; the card comes last."""
        self.out.mkdir(parents=True, exist_ok=True)
        rows = [self._rows(n) for n in range(-(-len(self.source) // PART_IMAGES))]
        there = {n: whole for n in range(len(rows)) if (whole := self._whole(n)) is not None}
        left = [n for n in range(len(rows)) if n not in there]
        if there and left:
            note(f"{self.out}: {len(there):,} of {number(len(rows), 'part')} are there")
        tasks = [task for n in left for task in _tasks(rows[n])]
        with progress("packing", sum(len(rows[n]) for n in left), "images") as bar:
            results = _in_order(tasks, partial(_pack_some, self.source, self.settings), workers)
            for n in left:
                with _PartWriter(self.out, n) as part:
                    for task in _tasks(rows[n]):
                        self._take(part, task, next(results))
                        bar.advance(len(task))
                    there[n] = part.finish(self._digest(rows[n]))
        return self._finish([there[n] for n in range(len(rows))])

    def _rows(self, number: int) -> range:
        return range(number * PART_IMAGES, min((number + 1) * PART_IMAGES, len(self.source)))

    def _digest(self, rows: range) -> bytes:
        """Of what decides the bytes of a part, as far as it is known without reading the images."""
        digest = hashlib.sha256(json_bytes([dict(self.card.settings), self.card.source["fingerprint"], rows.start]))
        digest.update(json_bytes(self.card.classes) + np.ascontiguousarray(self.source.labels, "<i4").tobytes())
        return digest.digest()

    def _take(self, part: _PartWriter, rows: range, images: Sequence[tuple[bytes | None, int]]) -> None:
        for row, (data, source_bytes) in zip(rows, images, strict=True):
            self.source_bytes += source_bytes
            if data is None:
                self._count_bad(self.source.ids[row])
            else:
                part.add(self.source.ids[row], int(self.source.labels[row]), data)

    def _count_bad(self, sample_id: str) -> None:
        warn(f"{sample_id}: image cannot be decoded, left out")
        self.bad.append(sample_id)
        if len(self.bad) > self.max_bad * len(self.source):
            raise SourceError(
                f"{len(self.bad)} of {len(self.source):,} images cannot be decoded, more than --max-bad allows "
                f"({self.max_bad:.2%}; e.g. {self.bad[0]}); repair them, raise --max-bad, or remove them"
            )

    def _whole(self, number: int) -> PackedPart | None:
        """A part that an earlier start has finished; each of its images is checked."""
        tar, path = (self.out / f"{part_name(number)}{ending}" for ending in (".tar", ".safetensors"))
        try:
            index, sha256 = read_index(path)
            if index.digest != self._digest(self._rows(number)) or index.length != tar.stat().st_size:
                return None
            with tar.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                spans = zip(index.offsets.tolist(), index.sizes.tolist(), index.crc32.tolist(), strict=True)
                if any(zlib.crc32(data[offset : offset + size]) != crc for offset, size, crc in spans):
                    return None
                return PackedPart(images=len(index.ids), sha256=sha256)
        except (SourceError, OSError, ValueError):  # the last: an empty file cannot be mapped
            return None

    def _finish(self, parts: Sequence[PackedPart]) -> Packed:
        indices = [read_index(self.out / f"{part_name(n)}.safetensors")[0] for n in range(len(parts))]
        packed = {sample_id for index in indices for sample_id in index.ids}
        if not packed:
            raise SourceError(f"{self.source.uri}: none of its {len(self.source):,} images can be decoded")
        skipped = tuple(sample_id for sample_id in self.source.ids if sample_id not in packed)
        write_json(self.out / CARD, replace(self.card, parts=tuple(parts), skipped=skipped).to_json())
        return Packed(len(packed), sum(index.length for index in indices), self.source_bytes, skipped)


class _PartWriter:
    """Writes a tar file under a passing name and, when it is finished, its index beside it. A context."""

    def __init__(self, folder: Path, number: int) -> None:
        self._path = folder / f"{part_name(number)}.tar"
        self._index_path = folder / f"{part_name(number)}.safetensors"
        self._passing = folder / f".{part_name(number)}.tar.tmp"
        self._ids: list[str] = []
        self._columns: list[tuple[int, int, int, int]] = []

    def __enter__(self) -> _PartWriter:
        self._file = self._passing.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._passing.unlink(missing_ok=True)

    def add(self, sample_id: str, label: int, data: bytes) -> None:
        """Append an image."""
        member = tarfile.TarInfo(sample_id)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        offset = self._tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        self._ids.append(sample_id)
        self._columns.append((offset, len(data), zlib.crc32(data), label))

    def finish(self, digest: bytes) -> PackedPart:
        """Make it exist: the tar file first, then its index."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        length = self._file.tell()
        os.replace(self._passing, self._path)
        sync_folder(self._path.parent)
        offsets, sizes, crc32, labels = np.array(self._columns, np.int64).reshape(-1, 4).T
        index = PackedIndex(
            offsets=offsets.astype(np.uint64),
            sizes=sizes.astype(np.uint32),
            crc32=crc32.astype(np.uint32),
            labels=labels.astype(np.int32),
            ids=tuple(self._ids),
            digest=digest,
            length=length,
        )
        data = index.to_bytes()
        write_atomic(self._index_path, data)
        return PackedPart(images=len(self._ids), sha256=hashlib.sha256(data).hexdigest())


def _tasks(rows: range) -> list[range]:
    return [rows[first : first + _TASK_IMAGES] for first in range(0, len(rows), _TASK_IMAGES)]


def _pack_some(source: Source, settings: PackSettings, rows: range) -> list[tuple[bytes | None, int]]:
    """Of each row the packed image (none: it cannot be decoded), and how many bytes it had encoded."""
    found: list[tuple[bytes | None, int]] = []
    for row in rows:
        size = 0
        try:
            data = source[row].data
            size = len(data) if isinstance(data, bytes) else 0
            found.append((pack_image(decode(data), settings), size))
        except UndecodableImage:
            found.append((None, size))
    return found


def _in_order(
    tasks: Sequence[range], act: Callable[[range], list[tuple[bytes | None, int]]], workers: int
) -> Iterator[list[tuple[bytes | None, int]]]:
    """The results of `tasks` in their order, whichever is done first."""
    died = SourceError("a packing process died (often: out of memory); lower --workers and run the same command again")
    waiting: dict[int, list[tuple[bytes | None, int]]] = {}
    next_row = tasks[0].start if tasks else 0
    following = dict(pairwise(task.start for task in tasks))
    for task, result in run_tasks(tasks, act, workers, died):
        waiting[task.start] = result
        while next_row in waiting:
            yield waiting.pop(next_row)
            next_row = following.get(next_row, -1)

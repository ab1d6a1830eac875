"""The index of a tar file: what a scan found, kept so that the archive is looked through once.

It lies beside the archive as `NAME.tar.index`, or in the user's cache folder where that cannot be written (and for
archives in a store). A safetensors file: `offsets`, `sizes` int64 [M], `checks` uint32 [M], `labels` int32 [M],
`names` uint8 (UTF-8, parted by zero bytes); its metadata has the archive's size and date and a digest of the arrays. It
is derived: one that is absent, stale, damaged or of another version is made anew.
"""

from __future__ import annotations

import json
import os
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.files import parse_json, write_atomic
from buttress.sources.remote import canonical, is_remote, read_range, size_and_stamp
from buttress.sources.tar_scan import BAD_LABEL, BLOCK, LINK_SIZE, Members, scan
from buttress.terminal import warn

VERSION = "buttress tar index 1"
_AHEAD = 8 * 1024 * 1024  # bytes of one request while a remote archive is looked through
_FIELDS = {"offsets": np.int64, "sizes": np.int64, "checks": np.uint32, "labels": np.int32, "names": np.uint8}


def open_index(archive: str, place: str) -> Members:
    """What an archive holds, from its index or by looking through it (then the index is written).

    Args:
        archive: absolute path or URL.
        place: what an error names.

    Raises: `SourceError` where the archive cannot be read or is refused (`scan`).
    """
    size, stamp = _size_and_stamp(archive)
    for path in _places(archive):
        members = _read_index(path, size, stamp)
        if members is not None:
            return members
    members = _scan_remote(archive, size, place) if is_remote(archive) else _scan_local(archive, size, place)
    _keep(archive, _packed(members, stamp))
    return members


def is_indexed(archive: str) -> bool:
    """Whether an index file is there (it may yet turn out stale)."""
    return any(path.is_file() for path in _places(archive))


def _size_and_stamp(archive: str) -> tuple[int, str]:
    if is_remote(archive):
        size, key = size_and_stamp(archive)
        return size, f"{size} bytes, {key}"
    try:
        status = os.stat(archive)
    except OSError as failure:
        raise SourceError(f"{archive}: cannot be read ({failure.strerror})") from failure
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{archive}: cannot be read (not a file)")
    return status.st_size, f"{status.st_size} bytes, {status.st_mtime_ns} ns"


def _places(archive: str) -> list[Path]:
    """Where the index may lie: beside the archive, then in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = canonical(archive) if is_remote(archive) else archive
    cached = cache / "buttress" / "tar" / f"{blake2b(name.encode(), digest_size=16).hexdigest()}.index"
    return [cached] if is_remote(archive) else [Path(f"{archive}.index"), cached]


def _keep(archive: str, data: bytes) -> None:
    for path in _places(archive):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        except OSError:
            continue
        return
    warn(f"{archive}: its index can be written neither beside it nor in the cache; it is looked through every time")


def _scan_local(archive: str, size: int, place: str) -> Members:
    try:
        with open(archive, "rb", buffering=0) as file:
            return scan(lambda start, length: os.pread(file.fileno(), length, start), size, place)
    except OSError as failure:
        raise SourceError(f"{archive}: cannot be read ({failure.strerror})") from failure


def _scan_remote(archive: str, size: int, place: str) -> Members:
    ahead: tuple[int, bytes] = (0, b"")

    def read(start: int, length: int) -> bytes:
        nonlocal ahead
        stop = min(start + length, size)
        if start < stop and not ahead[0] <= start < stop <= ahead[0] + len(ahead[1]):
            ahead = (start, read_range(archive, start, min(size, max(stop, start + _AHEAD))))
        return ahead[1][start - ahead[0] : stop - ahead[0]] if start < stop else b""

    return scan(read, size, place)


def _packed(members: Members, stamp: str) -> bytes:
    import safetensors.numpy

    names = "\0".join(members.names).encode()
    arrays: dict[str, NDArray[Any]] = {
        "offsets": members.offsets,
        "sizes": members.sizes,
        "checks": members.checks,
        "labels": members.labels,
        "names": np.frombuffer(names, np.uint8),
    }
    about = {"version": VERSION, "archive": stamp, "others": members.others}
    about["digest"] = _digest(arrays, about)
    # one entry, for the order of several would not be the same every time
    return bytes(safetensors.numpy.save(arrays, {"index": json.dumps(about, sort_keys=True)}))


def _digest(arrays: dict[str, NDArray[Any]], about: dict[str, Any]) -> str:
    digest = blake2b(json.dumps([about["version"], about["archive"], about["others"]]).encode(), digest_size=16)
    for name in _FIELDS:
        digest.update(arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _read_index(path: Path, size: int, stamp: str) -> Members | None:
    """The index, or none where it is absent or not that of the archive as it is now."""
    import safetensors

    try:
        # names and rows take more room in the archive than here, so a larger file is not ours
        if path.stat().st_size > 2 * size + 64 * 1024:
            return None
        with safetensors.safe_open(path, framework="numpy") as file:
            about = parse_json((file.metadata() or {}).get("index", "").encode(), str(path), SourceError)
            if not isinstance(about, dict) or about.keys() != {"version", "archive", "others", "digest"}:
                return None
            if (about["version"], about["archive"]) != (VERSION, stamp):
                return None
            arrays = {name: file.get_tensor(name) for name in _FIELDS}
    except (OSError, SourceError, safetensors.SafetensorError):
        return None
    return _members(arrays, about, size)


def _members(arrays: dict[str, NDArray[Any]], about: dict[str, Any], size: int) -> Members | None:
    others = about["others"]
    if not isinstance(others, int) or any(arrays[name].dtype != dtype for name, dtype in _FIELDS.items()):
        return None
    if _digest(arrays, about) != about["digest"]:
        return None
    text = arrays["names"].tobytes().decode(errors="replace")
    names = tuple(text.split("\0")) if text else ()
    offsets, sizes = arrays["offsets"], arrays["sizes"]
    if any(arrays[name].shape != (len(names),) for name in _FIELDS if name != "names"):
        return None
    inside = (offsets >= BLOCK) & (sizes >= LINK_SIZE) & (offsets <= size - np.maximum(sizes, 0))
    if not inside.all() or not (arrays["labels"] >= BAD_LABEL).all():
        return None
    return Members(names=names, others=others, **{name: arrays[name] for name in _FIELDS if name != "names"})

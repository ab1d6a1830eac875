"""Files that are whole or absent: atomic writes, strict JSON, digests."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from buttress.errors import ButtressError, SettingsError

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_JSON_DEPTH = 32


def write_atomic(path: Path, data: bytes) -> None:
    """Write so that a reader sees the old file or the whole new one, also after a crash (temp, fsync, rename)."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_bytes(value: Any) -> bytes:
    """Canonical JSON: sorted keys, one space of indent, no NaN, newline at the end."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as canonical JSON."""
    write_atomic(path, json_bytes(value))


def read_json(path: Path, error: type[ButtressError]) -> Any:
    """Read strict JSON: duplicate keys, NaN, Infinity, deep nesting and huge files are refused.

    Raises: `error`, with the file's name and what was wrong.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise error(f"{path}: larger than {MAX_JSON_BYTES} bytes, not a file of ours")
        data = path.read_bytes()
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror})") from failure
    return parse_json(data, str(path), error)


def parse_json(data: bytes, place: str, error: type[ButtressError]) -> Any:
    """Parse strict JSON from bytes; `place` names it in the error."""

    def refuse(what: str) -> NoReturn:
        raise error(f"{place}: {what}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            refuse("a key stands twice")
        return result

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=lambda name: refuse(f"{name} is not allowed"),
        )
    except (ValueError, RecursionError) as failure:
        raise error(f"{place}: not valid JSON ({failure})") from failure
    if _depth(value) > MAX_JSON_DEPTH:
        refuse(f"nested deeper than {MAX_JSON_DEPTH}")
    return value


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        deepest = max(deepest, depth)
        children = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        stack.extend((child, depth + 1) for child in children)
    return deepest


def require_writable(path: Path, flag: str = "--out") -> None:
    """Notice before the work that a file could not be written after it. Leaves nothing behind.

    Args:
        path: the file to be written; folders above it may still be missing.
        flag: who named it, for the error.

    Raises: SettingsError, where `path` is a folder, or the system does not let a file be made there.
    """
    if path.is_dir():
        raise SettingsError(f"{flag} {path}: is a folder; name a file in it")
    _try_to_write(path.parent, f"{flag} {path}")


def require_own_folder(path: Path, ours: Callable[[str], bool], what: str, flag: str = "--out") -> None:
    """Notice before the work that a folder could not be made, or holds what is not ours. Leaves nothing behind.

    Args:
        path: the folder to be written to; it may be missing.
        ours: whether a file or folder in it, by its name, is one that this work may find there.
        what: what it may be, besides empty, for the error: "a reinforcement".
        flag: who named it, for the error.

    Raises: SettingsError, where it holds other files, or the system does not let files be made there.
    """
    _try_to_write(path, f"{flag} {path}")
    if not path.is_dir():
        return
    # A name with a dot in front is a leftover of ours, or what desktops and version control put into any folder.
    foreign = sorted(entry.name for entry in path.iterdir() if not (entry.name.startswith(".") or ours(entry.name)))
    if foreign:
        raise SettingsError(f"{flag} {path}: holds {foreign[0]}, so it is not {what}; name a new or an empty folder")


def _try_to_write(folder: Path, place: str) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as failure:
        raise SettingsError(f"{place}: {failure.strerror}; name a place that can be written to") from failure
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

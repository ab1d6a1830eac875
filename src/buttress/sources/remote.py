"""Files in stores that fsspec knows: `s3://`, `gs://`, `hf://`, `memory://` and the like. All else is a local path.

A file system is looked up anew for every call: fsspec keeps the instances, and forgets them in a forked process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from buttress.errors import SourceError


def is_remote(path: str) -> bool:
    """True for a URL such as `s3://bucket/folder`."""
    return "://" in path


def open_store(url: str) -> tuple[Any, str]:
    """The fsspec file system behind a URL, and the path in it.

    Raises: `SourceError` where no such kind of store is known or its package is not installed.
    """
    with reported(url):
        import fsspec

        store, path = fsspec.url_to_fs(url)
        return store, str(path)


def canonical(url: str) -> str:
    """One spelling of a URL that has several."""
    store, path = open_store(url)
    return str(store.unstrip_protocol(path))


def size_and_stamp(url: str) -> tuple[int, str]:
    """Bytes of a file, and a text that changes when the file does (the store's checksum or date, where it has one)."""
    store, path = open_store(url)
    with reported(url):
        size = store.info(path)["size"]
        stamp = str(store.ukey(path))
    if not isinstance(size, int):
        raise SourceError(f"{url}: the store does not say how large it is")
    return size, stamp


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a file by one request; fewer where it ends before."""
    store, path = open_store(url)
    with reported(url):
        return bytes(store.cat_file(path, start=start, end=stop))


def read_all(url: str) -> bytes:
    """A whole file."""
    store, path = open_store(url)
    with reported(url):
        return bytes(store.cat_file(path))


def files_below(url: str) -> list[str]:
    """Paths, relative to `url`, of all files in a folder and its sub-folders."""
    store, root = open_store(url)
    with reported(url):
        found = store.find(root)
    return [str(path)[len(root) :].lstrip("/") for path in found]


def files_matching(url: str) -> list[str]:
    """URLs of the files that a glob means, sorted."""
    store, pattern = open_store(url)
    with reported(url):
        found = store.glob(pattern, detail=True)
        return sorted(store.unstrip_protocol(path) for path, info in found.items() if info["type"] == "file")


def is_folder(url: str) -> bool:
    store, path = open_store(url)
    with reported(url):
        return bool(store.isdir(path))


@contextmanager
def reported(url: str, missing: type[SourceError] = SourceError) -> Iterator[None]:
    """Turn what a store raises into one line; `missing` is for a file that is not there or closed to us."""
    try:
        yield
    except SourceError:
        raise
    except (FileNotFoundError, PermissionError) as failure:
        reason = "no such file" if isinstance(failure, FileNotFoundError) else "permission denied"
        raise missing(f"{url}: {reason}") from failure
    except Exception as failure:  # every store has its own family of errors
        raise SourceError(f"{url}: {one_line(failure)}") from failure


def one_line(failure: Exception) -> str:
    """What another library's error says, in one line of at most 300 characters."""
    text = " ".join(str(failure).split()) or type(failure).__name__
    return text if len(text) <= 300 else text[:297] + "..."

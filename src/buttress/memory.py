"""How this process gets its memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from pathlib import Path

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h
_PAGE = mmap.PAGESIZE
_HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def keep_freed_memory(*, huge_pages: bool = True) -> bool:
    """Let the C library keep freed memory for the next tensors, and not hand it back to the system each time.

    On a CPU the activations of large batches are otherwise got from the system anew for every layer, and much of a
    forward pass is spent on its zeroing them. The process stays as large as it once was.

    Args:
        huge_pages: let it be of huge pages (2 MiB on most machines), where Linux gives them to who asks: the processor
            then looks up far fewer addresses. Half of the machine's memory is reserved as addresses for it, and taken
            as it is used; but arrays of zeros are then written where they are made, and not where they are used.

    Returns: whether it does; not where the allocator is not glibc's, or its variables (MALLOC_*, GLIBC_TUNABLES) are
        set.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        library, glibc = ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
        mallopt = library.mallopt
        if _address(library.malloc) != _address(glibc.malloc):  # another allocator was preloaded
            return False
    except (AttributeError, OSError, TypeError):  # other systems
        return False
    kept = bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))  # -1: never
    if kept and huge_pages and _gives_huge_pages() and not _limits_addresses():
        _prefer_huge_pages(library)
    return kept


def _address(function: object) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]


def _prefer_huge_pages(library: ctypes.CDLL) -> None:
    """Of the heap as it grows: it is grown once, marked, and stays so when what it was grown by is freed, untouched."""
    malloc, free, madvise = library.malloc, library.free, library.madvise
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") * _PAGE // 2
    start = malloc(size)
    if start is None:
        return
    first = -(-start // _PAGE) * _PAGE
    madvise(first, (start + size - first) // _PAGE * _PAGE, mmap.MADV_HUGEPAGE)
    free(start)


def _gives_huge_pages() -> bool:
    """To who asks; who gets them unasked, or never, has no use for asking."""
    try:
        return "[madvise]" in _HUGE.read_text()
    except OSError:
        return False


def _limits_addresses() -> bool:
    """Whether those that are reserved would be missing elsewhere (ulimit -v), or are counted as memory."""
    limits = (resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    try:
        strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return True
    return strict or any(limit != resource.RLIM_INFINITY for limit in limits)

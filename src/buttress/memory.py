"""How this process gets its memory."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h
_PAGE = mmap.PAGESIZE


def keep_freed_memory(*, huge_pages: bool = True) -> bool:
    """Let the C library keep freed memory for the next tensors, and not hand it back to the system each time.

    On a CPU the activations of large batches are otherwise got from the system anew for every layer, and much of a
    forward pass is spent on its zeroing them. The process stays as large as it once was.

    Args:
        huge_pages: let it be of pages of 2 MiB, where Linux gives them to who asks: the processor then looks up far
            fewer addresses. What is not used is not taken, but half of the machine's memory is reserved as addresses.

    Returns: whether it does; not where the library is not glibc, or its variables (MALLOC_*, GLIBC_TUNABLES) are set.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):  # other systems
        return False
    kept = bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))  # -1: never
    if kept and huge_pages and _overcommits():
        _prefer_huge_pages(library)
    return kept


def _prefer_huge_pages(library: ctypes.CDLL) -> None:
    """Of the heap as it grows: it is grown once, marked, and stays so when what it was grown by is freed, untouched."""
    malloc, free, madvise = library.malloc, library.free, library.madvise
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") * _PAGE // 2
    start = malloc(size)
    if start is None:  # a limit of addresses (ulimit -v)
        return
    first = -(-start // _PAGE) * _PAGE
    madvise(first, (start + size - first) // _PAGE * _PAGE, mmap.MADV_HUGEPAGE)
    free(start)


def _overcommits() -> bool:
    """Whether addresses alone cost nothing."""
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "2"
    except OSError:
        return False

"""How this process gets its memory."""

from __future__ import annotations

import ctypes
import os

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensors, and not hand it back to the system each time.

    On a CPU the activations of large batches are otherwise got from the system anew for every layer, and much of a
    forward pass is spent on its zeroing them. The process stays as large as it once was.

    Returns: whether it does; not where the library is not glibc, or its variables (MALLOC_*, GLIBC_TUNABLES) are set.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # other systems
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))

"""Freed memory is kept, unless somebody has said how it is to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys
import numpy as np
from buttress.memory import keep_freed_memory

kept = keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [np.ones(2**21, np.uint8) for _ in range(40)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(kept, faults())
"""


def told(**variables: str) -> tuple[str, int]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(
        [sys.executable, "-c", FAULTS], env={**plain, **variables}, check=True, capture_output=True, text=True
    )
    kept, faults = found.stdout.split()
    return kept, int(faults)


HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PAGES = """
import sys
from buttress.memory import keep_freed_memory

keep_freed_memory(huge_pages=sys.argv[1] == "yes")
used = bytearray(b"1") * 2**26  # numpy asks for huge pages by itself
told = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup").readlines()[1:])
print(told["AnonHugePages:"], told["Rss:"])
"""


@pytest.mark.skipif(not HUGE.exists() or "[madvise]" not in HUGE.read_text(), reason="no huge pages for who asks")
@pytest.mark.parametrize("asked", [True, False])
def test_large_arrays_lie_in_huge_pages(asked):
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PAGES, "yes" if asked else "no"]
    found = subprocess.run(command, env=plain, check=True, capture_output=True, text=True)
    huge, resident = map(int, found.stdout.split())  # of 64 MiB, in KiB
    assert huge > 60_000 if asked else huge < 8_000
    assert resident < 200_000  # what is reserved is not taken


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's way")
def test_who_may_not_reserve_addresses_keeps_freed_memory_all_the_same():
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // 1024  # KiB
    program = "import buttress.memory as m; print(m.keep_freed_memory()); import torch"
    command = f"ulimit -v {half + 2**21}; exec {sys.executable} -c '{program}'"
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(["bash", "-c", command], env=plain, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's way")
def test_arrays_take_the_places_of_the_last_ones() -> None:
    kept, faults = told()
    assert kept == "True"
    assert faults < 100  # of 20,480 pages


def test_who_has_set_the_library_himself_is_let_alone() -> None:
    kept, faults = told(MALLOC_ARENA_MAX="4")
    assert kept == "False"
    assert faults > 1000 or sys.platform != "linux"

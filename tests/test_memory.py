"""Freed memory is kept, unless somebody has said how it is to be."""

from __future__ import annotations

import os
import subprocess
import sys

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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's way")
def test_arrays_take_the_places_of_the_last_ones() -> None:
    kept, faults = told()
    assert kept == "True"
    assert faults < 100  # of 20,480 pages


def test_who_has_set_the_library_himself_is_let_alone() -> None:
    kept, faults = told(MALLOC_ARENA_MAX="4")
    assert kept == "False"
    assert faults > 1000 or sys.platform != "linux"

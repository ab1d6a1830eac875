"""The images and the second teacher that the labelling tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from buttress.labelling import plan
from buttress.sources import Source, open_source

NARROW_TEACHER = """
import numpy as np

def look(views_BHWC):
    assert views_BHWC.shape[1:] == (16, 16, 3)
    corner_BC = views_BHWC[:, :8, :8, [0, 2, 1]].reshape(len(views_BHWC), -1, 3).mean(axis=1) + 1
    return corner_BC / corner_BC.sum(axis=1, keepdims=True)

look.size, look.classes = 16, ("red", "blue", "green")
"""


@pytest.fixture
def source(photos: Path) -> Source:
    return open_source(f"folder:{photos}")


@pytest.fixture
def narrow_teacher(colour_teacher: str) -> str:
    """URI of a second teacher: 16 pixels, the classes of the first in another order."""
    (Path(os.environ["PYTHONPATH"]) / "narrow_teacher.py").write_text(NARROW_TEACHER)
    return "python:narrow_teacher:look"


@pytest.fixture
def uris(colour_teacher: str, narrow_teacher: str) -> list[str]:
    """A teacher of 24 pixels and one of 16."""
    return [colour_teacher, narrow_teacher]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 8 rows, so that most partners lie in another one."""
    monkeypatch.setattr(plan, "ROWS_PER_PART", 8)

"""`make clean`, on a copy of the Makefile among things that it may and may not remove."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"
GOES = ["build/wheel", "dist", ".mypy_cache", ".hypothesis", "src/x.egg-info", "src/x/__pycache__", "tests/__pycache__"]
STAYS = ["src/x/code.py", "runs/a/run.json", ".venv/lib/__pycache__/a.pyc", ".git/__pycache__/b"]


@pytest.fixture
def tree(tmp_path):
    shutil.copy(MAKEFILE, tmp_path)
    for name in GOES:
        (tmp_path / name).mkdir(parents=True)
    for name in STAYS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def clean(tree) -> list[str]:
    result = subprocess.run(["make", "-C", str(tree), "clean"], capture_output=True, text=True, check=True)
    return [line.removeprefix("removing ") for line in result.stdout.splitlines() if line.startswith("removing ")]


def test_clean_removes_what_was_built_says_so_and_leaves_the_rest(tree):
    said = clean(tree)
    assert not any((tree / name).exists() for name in GOES)
    assert all((tree / name).exists() for name in STAYS)
    assert len(said) == len(GOES)
    assert clean(tree) == []


@pytest.mark.parametrize("marked", [True, False])
def test_clean_removes_only_a_demo_that_bears_the_mark(tree, marked):
    (tree / "demo").mkdir()
    (tree / "demo" / (".buttress-demo" if marked else "mine.jpg")).touch()
    assert ("demo" in clean(tree)) == marked
    assert (tree / "demo").exists() != marked

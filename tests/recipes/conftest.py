"""The smoke twins of the shipped recipes, each run once."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import pytest

from buttress.cli import main
from buttress.recipes.shipped import read_header, shipped_path


class Twins:
    """Runs smoke twins in a folder, what they need before them, and no command twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: set[str] = set()

    def run(self, name: str) -> Path:
        """The run folder of the smoke twin of recipe `name`."""
        for line in read_header(shipped_path(f"{name}.smoke")).before:
            self._once(line)
        self._once(f"buttress train --recipe {name}.smoke --out runs/{name}.smoke")
        return self.folder / "runs" / f"{name}.smoke"

    def _once(self, line: str) -> None:
        if line not in self._done:
            program, *words = shlex.split(line)
            assert program == "buttress"
            with contextlib.chdir(self.folder):
                assert main(words) == 0, line
            self._done.add(line)


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp("twins"))

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
        header = read_header(shipped_path(f"{name}.smoke"))
        for line in header.before:
            self._once(line)
        verb = header.command.split()[header.command.split().index("buttress") + 1]
        self._once(f"buttress {verb} --recipe {name}.smoke --out runs/{name}.smoke")
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

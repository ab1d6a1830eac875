"""Nothing that we write or read can carry code."""

import ast
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from buttress.errors import StoreError
from buttress.store.reader import open_reinforcement
from buttress.store.verify import check_integrity
from store.small_store import Plan

PROJECT = Path(__file__).parents[2]
SOURCES = sorted((PROJECT / "src").rglob("*.py"))
PAGES = sorted([*(PROJECT / "docs").rglob("*.md"), PROJECT / "README.md"])
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def faults(tree: ast.AST) -> list[int]:
    """Lines that import a pickling module, or load with weights_only=False or allow_pickle=True."""
    lines = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        if any(name.split(".")[0] in MODULES for name in names):
            lines.append(line)
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            value = (node.arg, node.value.value)
            if value in (("weights_only", False), ("allow_pickle", True)):
                lines.append(line)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            lines.append(line)
    return lines


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib as j",
        "torch.load(path)",
        "load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_R7_the_search_sees_what_it_should(code):
    assert faults(ast.parse(code)) == [1]


def test_R7_our_code_unpickles_nothing():
    assert len(SOURCES) > 20
    found = [f"{path}:{line}" for path in SOURCES for line in faults(ast.parse(path.read_text()))]
    assert found == []


def test_R7_our_pages_teach_nobody_to_unpickle():
    pattern = re.compile(
        r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|^\s*(?:import|from) (?:pickle|dill|joblib)", re.M
    )
    assert [str(path) for path in PAGES if path.is_file() and pattern.search(path.read_text())] == []


class Harm:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["part-00000-v0000.safetensors", "part-00000-v0000.json", "reinforcement.json"])
def test_R7_a_planted_pickle_does_not_run(tmp_path, name):
    plan = Plan(3, 2)
    folder = plan.write(tmp_path / "photos+")
    (folder / name).write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    with pytest.raises(StoreError, match=name):
        open_reinforcement(folder).records(np.array([0]), 0)
    assert not check_integrity(folder).whole
    assert not (tmp_path / "harm").exists()

"""Every code block of the README and of docs/ is run, and every table of results is what its script makes of its file.

Blocks in `sh` and `python` are run, in their order, in one folder per page that holds small photos; other languages are
not. A Python block whose first line is `# name.py` is that file. Large numbers and models are replaced by small ones.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.code_blocks import PAGES, PROJECT, CodeBlock, code_blocks
from tests.conftest import COLOUR_TEACHER

from buttress.cli import main

RUN = ("sh", "python")
OTHER_TESTS = ("make ", "pip install ")  # lines of `sh` that are not run here
SMALLER = {
    "timm:convnext_tiny.in12k_ft_in1k": "timm:test_convnext",
    "timm:tf_efficientnet_lite2.in1k": "run:runs/stranger",
    "mobilenetv3_small_050": "test_resnet",
    "--views 16": "--views 2 --workers 0",
    "--epochs 5 ": "--epochs 1 ",
    "--epochs 50 ": "--epochs 2 ",
    "--suite full": "--suite full --corruption-samples 3",
    "range(50)": "range(2)",
    "_epochs=50": "_epochs=2",
    "batch_size=64": "batch_size=8",
    "size=224": "size=32",
    "create_transform(224": "create_transform(32",
    "photos+ 224": "photos+ 32",
}
QUICK = {  # added to a command; of a repeated flag the last counts
    "train": "--size 32 --batch 8 --workers 0 --epochs 1",
    "compress": "--size 32 --batch 8 --workers 0 --epochs 1",
    "refine": "--size 32 --batch 8 --workers 0 --epochs 1 --rounds 2",
    "evaluate": "--workers 0",
    "predict": "--workers 0",
    "demo": "--epochs 1 --seeds 1 --views 2 --size 32 --model timm:test_resnet --batch 8",
    "train_plus.py": "--device cpu --workers 0 --batch-size 8 --warmup-epochs 0",
}
MARK = re.compile(
    r"^<!-- [^\n]*made by `python -m benchmarks\.(\w+)[^\n]*` -->\n(.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE
)


def name_of(path: Path) -> str:
    return path.name


def smaller(text: str) -> str:
    for long, short in SMALLER.items():
        text = text.replace(long, short)
    return text


def make_reinforcement(teacher: str) -> None:
    assert not main(["reinforce", "--source=folder:photos/train", f"--teacher={teacher}", "--views=2", "--out=photos+"])


def make_place_for_trainers(teacher: str) -> None:
    make_reinforcement(teacher)
    shutil.copy(PROJECT / "tests" / "trainers" / "timm_driver.py", "train.py")


def make_stranger(teacher: str) -> None:
    """A reinforcement, and a teacher that has never heard of the photos' classes."""
    make_reinforcement(teacher)
    shutil.copytree("photos/train", "strange")
    for number, folder in enumerate(sorted(Path("strange").iterdir())):
        folder.rename(folder.parent / f"thing-{number}")
    words = ["train", "--model=timm:test_resnet", "--data=folder:strange", "--out=runs/stranger"]
    assert not main([*words, *shlex.split(QUICK["train"])])


def make_sure_labels(teacher: str) -> None:
    """Three noisy classes, three of whose images lie in the wrong folder, as a teacher sees them that is sure."""
    Path("sure_teacher.py").write_text(COLOUR_TEACHER.replace("32.0", "8.0"))
    moves = {"red/02.png": "blue/odd.png", "green/01.png": "red/odd.png", "blue/00.png": "green/odd.png"}
    for old, new in moves.items():
        (Path("photos/train") / old).rename(Path("photos/train") / new)
    words = ["--teacher=python:sure_teacher:look", "--views=3", "--k=2", "--workers=0", "--policy=crop"]
    assert not main(["reinforce", "--source=folder:photos/train", *words, "--out=photos+"])


def make_runs(teacher: str) -> None:
    """A plain run, one of palettes and an elastic one."""
    words = ["--data=folder:photos/train", *shlex.split(QUICK["train"])]
    assert not main(["train", "--model=timm:test_resnet", *words, "--out=runs/a"])
    assert not main(["compress", "runs/a", "--method=dkm", *words, "--out=runs/a-2bit"])
    assert not main(["compress", "runs/a", "--method=subspace", *words, "--out=runs/elastic"])


# What a page takes as given besides photos/train and photos/val; a page that is not named takes a reinforcement.
GIVEN: dict[str, Callable[[str], None]] = {
    "README.md": lambda teacher: None,
    "trainers.md": make_place_for_trainers,
    "training.md": make_stranger,
    "health.md": make_sure_labels,
    "export.md": make_runs,
}


@pytest.fixture
def place(photos, tmp_path, monkeypatch):
    """A folder with photos/train and photos/val, which is the current one."""
    (tmp_path / "photos" / "train").mkdir()
    for folder in list(photos.iterdir()):
        if folder.name != "train":
            folder.rename(photos / "train" / folder.name)
    (photos / "val").symlink_to(photos / "train", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run_command(line: str) -> None:
    program, *words = shlex.split(smaller(line))
    if program == "torchrun":
        program, words = "python", ["-m", "torch.distributed.run", "--standalone", *words, *shlex.split(QUICK["train"])]
    words += shlex.split(QUICK.get(words[0], ""))
    if program == "buttress":
        assert main(words) in ((0, 1) if words[0] == "demo" else (0,)), line
    elif program == "python":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    else:
        pytest.fail(f"no test knows how to run: {line}")


def run_block(block: CodeBlock, names: dict[str, Any]) -> None:
    if block.file is not None:
        Path(block.file).write_text(block.text)
    elif block.language == "python":
        exec(compile(smaller(block.text), "block", "exec"), names)
    else:
        for line in block.commands():
            if not line.startswith(OTHER_TESTS):
                run_command(line)


ELSEWHERE = ("sources.md",)  # tests/sources/test_sources_page.py runs its blocks, among files of every kind
RUN_HERE = [
    page for page in PAGES if page.name not in ELSEWHERE and any(block.language in RUN for block in code_blocks(page))
]


# Pages call much of other people's code; what it warns of is looked at where that code is tested by itself.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", RUN_HERE, ids=name_of)
def test_every_block_of_a_page_runs(page, place, colour_teacher, monkeypatch):
    monkeypatch.setattr("buttress.metrics.cost.timing.LEAST_SECONDS", 0.0)
    GIVEN.get(page.name, make_reinforcement)(colour_teacher)
    for block in code_blocks(page):
        if block.language in RUN:
            run_block(block, {"__name__": "block"})


def test_the_two_make_commands_stand_alone():
    blocks = [block for block in code_blocks(PROJECT / "README.md") if block.language == "sh"]
    lines = [line for block in blocks for line in block.commands() if line.startswith("make ")]
    assert lines == ["make demo", "make test"]


WITH_TABLES = (*PAGES, PROJECT / "benchmarks" / "README.md")
TABLES = [(page, *found) for page in WITH_TABLES for found in MARK.findall(page.read_text())]


@pytest.mark.parametrize(("page", "module", "table"), TABLES, ids=[f"{page.name}-{name}" for page, name, _ in TABLES])
def test_a_table_is_what_its_script_makes_of_the_recorded_runs(page, module, table):
    assert table.strip() == import_module(f"benchmarks.{module}").table().strip()


@pytest.mark.parametrize("page", WITH_TABLES, ids=name_of)
def test_every_mark_of_a_table_is_seen(page):
    assert len(MARK.findall(page.read_text())) == page.read_text().count("<!-- end -->")


@pytest.mark.parametrize("page", WITH_TABLES, ids=name_of)
def test_no_table_of_results_is_written_by_hand(page):
    by_hand = [line for line in MARK.sub("", page.read_text()).splitlines() if line.startswith("|") and "±" in line]
    assert by_hand == []


@pytest.mark.parametrize("file", sorted((PROJECT / "docs" / "results").glob("*.jsonl")), ids=name_of)
def test_every_recorded_run_says_how_it_was_made(file):
    for line in map(json.loads, file.read_text().splitlines()):
        assert line["command"].startswith("python -m benchmarks.")
        assert not any(Path(word).is_absolute() for word in line["command"].split()), "a folder of some machine"
        assert re.fullmatch(r"[0-9a-f]{40}\+?", line["commit"])
        assert {"buttress", "torch"} <= line["versions"].keys()
        assert "seed" in line.get("trial", {"seed": None})

"""Every code block of the README is run, on a small folder, with small models in the place of those it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.conftest import COLOUR_TEACHER

from buttress.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"
HEALTH = README.parent / "docs" / "health.md"
SMALLER = {
    "timm:convnext_tiny.in12k_ft_in1k": "timm:test_convnext",
    "timm:mobilenetv3_small_050": "timm:test_resnet",
    "--views 16": "--views 2 --workers 0",
    "--epochs 5": "--epochs 1",
}
QUICK = {
    "train": "--size 32 --batch 8 --workers 0 --epochs 1",
    "evaluate": "--workers 0",
    "predict": "--workers 0",
    "demo": "--epochs 1 --seeds 1 --views 2 --size 32 --model timm:test_resnet --batch 8",
}


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_two_make_commands_stand_alone():
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")]
    assert lines == ["make demo", "make test"]


@pytest.mark.filterwarnings("ignore")
def test_the_readme_runs_as_it_stands(photos, tmp_path, monkeypatch):
    (tmp_path / "photos" / "train").mkdir()
    for folder in list(photos.iterdir()):
        if folder.name != "train":
            folder.rename(photos / "train" / folder.name)
    (photos / "val").symlink_to(photos / "train", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("buttress ")]
    assert len(commands) >= 6
    for line in commands:
        for long, short in SMALLER.items():
            line = line.replace(long, short)
        words = shlex.split(line)[1:]
        code = main([*words, *shlex.split(QUICK.get(words[0], ""))])
        assert code in ((0, 1) if words[0] == "demo" else (0,)), line
    (python,) = blocks("python")
    exec(python, {})
    assert (tmp_path / "a.json").exists()
    assert (tmp_path / "predictions.csv").exists()
    assert (tmp_path / "health.html").exists()
    assert (tmp_path / "comparison" / "report.html").exists()


def test_the_page_on_health_runs_as_it_stands(photos, tmp_path, monkeypatch, capsys):
    """On three noisy classes, three of whose images lie in the wrong folder."""
    (tmp_path / "sure_teacher.py").write_text(COLOUR_TEACHER.replace("32.0", "8.0"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    moves = {"red/02.png": "blue/odd.png", "green/01.png": "red/odd.png", "blue/00.png": "green/odd.png"}
    for old, new in moves.items():
        (photos / old).rename(photos / new)
    photos.rename(tmp_path / "train")
    (tmp_path / "photos").mkdir()
    (tmp_path / "train").rename(tmp_path / "photos" / "train")
    words = ["--teacher", "python:sure_teacher:look", "--views", "3", "--k", "2", "--workers", "0", "--policy", "crop"]
    assert main(["reinforce", "--source", "folder:photos/train", *words, "--out", "photos+"]) == 0
    for line in (line for block in blocks("sh", HEALTH) for line in block.splitlines()):
        assert main(shlex.split(line)[1:]) == 0
    assert "3 of 24 labels are likelier wrong than right" in capsys.readouterr().out
    (python,) = blocks("python", HEALTH)
    exec(python, {})
    assert "blue/odd.png is blue but looks like red" in capsys.readouterr().out
    assert (tmp_path / "health.html").exists()

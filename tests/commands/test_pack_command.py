"""`buttress pack`: what it says, and what comes of it in a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import COLOUR_TEACHER

from buttress.cli import main


def test_packed_images_are_labelled_trained_on_and_scored(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("colour_teacher.py").write_text(COLOUR_TEACHER)
    assert main(["pack", f"folder:{photos}", "--out=packed", "--short-side=24", "--workers=0"]) == 0
    assert "use it as packed:packed" in capsys.readouterr().err
    words = ["--views=4", "--k=2", "--workers=0", "--teacher=python:colour_teacher:look"]
    assert main(["reinforce", "--source=packed:packed", *words, "--out=packed+"]) == 0
    assert main(["verify", "packed+", "--source=packed:packed"]) == 0
    words = ["--model=timm:test_resnet", "--size=24", "--batch=8", "--epochs=4", "--workers=0"]
    given = ["--data=packed:packed", "--reinforcement=packed+", "--engine.views_per_decode=4"]
    assert main(["train", *words, *given, "--out=run"]) == 0
    assert main(["evaluate", "run", "--data=packed:packed", "--workers=0", "--out=a.json"]) == 0
    assert json.loads(Path("a.json").read_text())["top1"]["count"] > 0
    capsys.readouterr()
    assert main(["verify", "packed+", f"--source=folder:{photos}"]) != 0, "the teacher saw other pixels"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["folder:none", "--out=p"], "no such folder"),
        (["digits", "--out=p", "--short-side=4"], "--short-side 4: lies in 16..16384 pixels"),
        (["digits", "--out=p", "--quality=0"], "--quality 0: lies in 1..100"),
        (["digits"], "--out"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pack", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not Path("p").exists()

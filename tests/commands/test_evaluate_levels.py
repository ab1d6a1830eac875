"""The verbs on an elastic run: `evaluate` at every level or at one, `predict`, `reinforce`, `report`, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from buttress.cli import main
from buttress.runs import open_run
from buttress.sources import open_source
from buttress.training.data import TrainingData
from buttress.training.settings import TrainingSettings
from buttress.training.train import train_on_source
from buttress.views.presets import read_policy
from buttress.weights.settings import SubspaceSettings


@pytest.fixture
def elastic(photos: Path, tmp_path: Path) -> Path:
    """A line of networks, trained a little on the photos."""
    data = TrainingData(source=open_source(f"folder:{photos}"), policy=read_policy("small-crop"))
    settings = TrainingSettings(epochs=1, batch=8, workers=0)
    out = tmp_path / "elastic"
    train_on_source(
        data, model="timm:test_resnet", out=out, settings=settings, size=32, methods=[SubspaceSettings(beta=0)]
    )
    return out


def evaluate(model: str, photos: Path, *words: str) -> int:
    return main(["evaluate", model, f"--data=folder:{photos}", "--workers=0", *words])


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_all_levels_are_kept_in_the_run_and_one_level_does_not_replace_them(elastic, photos, tmp_path, capsys):
    kept = elastic / "evaluation.json"
    assert evaluate(str(elastic), photos) == 0
    text = capsys.readouterr().out
    assert "levels, the default first" in text and "multiply-accumulates, M" in text
    whole = read(kept)
    levels = whole["details"]["levels"]
    assert [each["level"] for each in levels] == [str(each) for each in open_run(elastic).levels()]
    assert whole["settings"]["level"] == levels[0]["level"] == "at=0.5"
    assert levels[0]["figures"] == {key: whole[key] for key in ("top1", "top5", "nll", "ece")}
    assert all(line in text for line in (f"{each['figures']['nll']['value']:.4f}" for each in levels))

    before = kept.read_bytes()
    assert evaluate(f"run:{elastic}@at=0.25", photos) == 0
    assert kept.read_bytes() == before
    assert "--out FILE keeps the figures" in capsys.readouterr().err
    assert evaluate(f"{elastic}@at=0.25", photos, f"--out={tmp_path / 'one.json'}") == 0
    one = read(tmp_path / "one.json")
    assert one["settings"]["level"] == "at=0.25" and "levels" not in one["details"]
    (same,) = [each for each in levels if each["level"] == "at=0.25"]
    assert {key: one[key] for key in same["figures"]} == same["figures"]

    page = tmp_path / "page.html"
    assert main(["report", f"run:{elastic}", str(tmp_path / "one.json"), f"--out={page}"]) == 0
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith("2 models")
    shown = page.read_text()
    assert 'data-level="at=0.75"' in shown and "elastic@at=0.25" in shown
    assert main(["report", f"run:{elastic}@at=0", f"--out={page}"]) == 2
    assert "is shown at all its levels" in capsys.readouterr().err


def test_a_level_predicts_and_teaches(elastic, photos, tmp_path):
    source = f"--source=folder:{photos}"
    for name, uri in (("default", f"run:{elastic}"), ("corner", f"run:{elastic}@at=1")):
        assert main(["predict", uri, source, "--workers=0", f"--out={tmp_path / name}.csv"]) == 0
        words = [source, f"--teacher={uri}", "--views=1", "--k=2", "--workers=0", "--policy=crop"]
        assert main(["reinforce", *words, f"--out={tmp_path / name}"]) == 0
    assert (tmp_path / "default.csv").read_text() != (tmp_path / "corner.csv").read_text()
    told = {name: read(tmp_path / name / "reinforcement.json")["teachers"][0] for name in ("default", "corner")}
    assert told["corner"]["level"] == "at=1" and "level" not in told["default"]
    assert told["corner"]["weights_sha256"] == told["default"]["weights_sha256"]
    labels = [next((tmp_path / name).glob("part-*.safetensors")).read_bytes() for name in ("default", "corner")]
    assert labels[0] != labels[1]
    assert main(["verify", str(tmp_path / "corner"), source, f"--teacher=run:{elastic}@at=1"]) == 0


def test_another_level_of_the_same_file_is_another_teacher(elastic, photos, tmp_path, capsys):
    out, first, other = f"--out={tmp_path / 'store'}", f"--teacher=run:{elastic}@at=1", f"--teacher=run:{elastic}@at=0"
    words = [f"--source=folder:{photos}", "--k=2", "--workers=0", "--policy=crop"]
    assert main(["reinforce", *words, first, "--views=1", out]) == 0
    capsys.readouterr()
    assert main(["reinforce", *words, other, "--views=2", out]) == 2
    assert "teacher's level" in capsys.readouterr().err
    assert main(["reinforce", *words, f"{first}.0", "--views=2", out]) == 0
    assert main(["verify", str(tmp_path / "store"), words[0], other]) == 2
    assert "weights, level or source differ" in capsys.readouterr().err
    assert main(["reinforce", *words, first, other, "--views=1", f"--out={tmp_path / 'both'}"]) == 0
    assert [each["level"] for each in read(tmp_path / "both" / "reinforcement.json")["teachers"]] == ["at=1", "at=0"]


def test_what_an_elastic_run_cannot_do_is_refused_in_a_line(elastic, photos, tmp_path, capsys):
    (tmp_path / "two").mkdir()
    for name in ("blue", "red"):
        shutil.copytree(photos / name, tmp_path / "two" / name)
    data, out, plain = f"--data=folder:{photos}", f"--out={tmp_path / 'no'}", tmp_path / "plain"
    words = ["train", "--model=timm:test_resnet", data, "--size=32", "--epochs=1", "--batch=8", "--workers=0"]
    assert main([*words, f"--out={plain}"]) == 0
    capsys.readouterr()
    cases = [
        (["train", f"--model=run:{elastic}", data, out], "is compressed, and trains no further"),
        (["train", f"--model=run:{elastic}@at=0", data, out], "is compressed, and trains no further"),
        (["fold", f"run:{elastic}", f"--data=folder:{tmp_path / 'two'}", out], "fold first, then compress"),
        (["export", f"run:{elastic}", out], "is compressed"),
        (["evaluate", f"run:{elastic}@at=0.1", data], "batch statistics are kept at 0, 0.25, 0.5, 0.75, 1 alone"),
        (["evaluate", f"run:{elastic}@keep=0.5", data], "this model has levels of at"),
        (["evaluate", f"run:{elastic}@kep=0.5", data], "did you mean keep"),
        (["evaluate", f"run:{plain}@keep=0.5", data], "this run has no levels"),
        (["fold", f"run:{plain}@keep=0.5", f"--data=folder:{tmp_path / 'two'}", out], "this run has no levels"),
        (["export", f"run:{plain}@keep=0.5", out], "this run has no levels"),
    ]
    for command, part in cases:
        assert main(command) == 2, command
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and part in error[0], (command, error)
    assert not (tmp_path / "no").exists()
    assert evaluate(str(plain), photos, f"--out={tmp_path / 'plain.json'}") == 0
    document = read(tmp_path / "plain.json")
    assert document["settings"]["level"] is None and "levels" not in document["details"]

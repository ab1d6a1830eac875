"""Which level of which run is exported, and to which file."""

from __future__ import annotations

import os

import pytest
from tests.export.runs import a_run

from buttress.cli import main
from buttress.errors import SettingsError
from buttress.export.subject import Subject, require_new_file, write_new_file
from buttress.weights.levels import Level
from buttress.weights.settings import DkmSettings, SubspaceSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    a_run(folder / "plain")
    a_run(folder / "line", SubspaceSettings())
    a_run(folder / "dkm", DkmSettings())
    return folder


def test_a_level_stands_in_the_uri_or_in_the_flag(folder):
    line = folder / "line"
    for uri, flag in ((f"{line}", "at=0.25"), (f"run:{line}@at=0.25", None), (f"{line}@at=0.25", "at=.25")):
        assert Subject.of(uri, flag).level == Level.of("at", 0.25)
    assert Subject.of(str(line)).level is None
    assert Subject.of(str(folder / "dkm")).level is None
    said = Subject.of(str(line), "at=0+1")
    assert said.metadata(said.load())["level"] == "at=0+1"
    assert "level" not in (plain := Subject.of(str(folder / "plain"))).metadata(plain.load())


@pytest.mark.parametrize("format", ["onnx", "torch-export", "safetensors"])
@pytest.mark.parametrize(
    ("run", "flag", "said"),
    [
        ("line", None, "line: is elastic; name a --level, such as at=0.5, at=0, at=0.25, at=0.75, at=1"),
        ("line@at=0", "at=1", "--level at=1: but line@at=0 names at=0; give one of them"),
        ("line", "keep=0.5", "level keep=0.5: line has others: at=0.5, at=0, at=0.25, at=0.75, at=1"),
        ("line", "at=0.3", "level at=0.3: batch statistics are kept at 0, 0.25, 0.5, 0.75, 1 alone; choose one"),
        ("line", "keep", "level 'keep': expected at=0.5, "),
        ("plain", "at=0.5", "level at=0.5: plain has no levels; leave it out"),
        ("dkm@bits=2", None, "level bits=2: dkm has no levels; leave it out"),
    ],
)
def test_a_level_that_is_not_there_is_one_line(folder, monkeypatch, capsys, format, run, flag, said):
    monkeypatch.chdir(folder)
    suffix = {"onnx": "onnx", "torch-export": "pt2", "safetensors": "safetensors"}[format]
    words = ["export", run, "--format", format, "--out", f"out.{suffix}", *(["--level", flag] if flag else [])]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["dkm", "line", "plain"]


@pytest.mark.parametrize("format", ["onnx", "torch-export", "safetensors"])
def test_a_file_is_new_and_named_after_its_format(folder, monkeypatch, capsys, tmp_path, format):
    monkeypatch.chdir(tmp_path)
    suffix = {"onnx": "onnx", "torch-export": "pt2", "safetensors": "safetensors"}[format]
    (tmp_path / f"mine.{suffix}").write_text("mine")
    words = ["export", str(folder / "plain"), "--format", format, "--out"]
    assert main([*words, f"mine.{suffix}"]) == 2
    assert f"--out mine.{suffix}: exists already" in capsys.readouterr().err
    assert main([*words, "out.bin"]) == 2
    assert f"--out out.bin: such a file is named *.{suffix}" in capsys.readouterr().err
    assert main(["export", str(folder / "plain"), "--out", f"folder.{suffix}"]) == 2
    assert f"for such a file give --format {format}" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(f"mine.{suffix}", "mine")]


def test_compressed_runs_have_no_timm_folder_and_are_told_what_works(folder, tmp_path, capsys):
    for run in ("dkm", "line@at=0.5"):
        assert main(["export", f"{folder / run}", "--out", str(tmp_path / "out")]) == 2
        assert "use --format onnx, torch-export or safetensors" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_writing_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_new_file(tmp_path / "deep" / "out.onnx", b"whole")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_noticed_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="name a place that can be written to"):
        require_new_file(tmp_path / "file" / "out.onnx", ".onnx")

"""The verbs as a user runs them, and what they say when something is wrong: one line, exit 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from buttress.cli import main
from buttress.runs.run import open_run

MODEL = "timm:test_vit"  # any timm model will do; this one is small and quick
TRAIN = ["--size", "32", "--epochs", "2", "--batch", "8", "--workers", "0"]


@pytest.fixture
def plus(photos, colour_teacher, tmp_path):
    words = ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--views", "3", "--k", "2"]
    assert main(["reinforce", *words, "--workers", "0", "--out", str(tmp_path / "plus")]) == 0
    return tmp_path / "plus"


def said(capsys, argv) -> tuple[int, str]:
    """Exit code and the error line, of which there must be one and no traceback."""
    capsys.readouterr()
    code = main([str(word) for word in argv])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if "error:" in line]
    assert len(lines) <= 1
    return code, lines[0] if lines else error


def test_reinforce_verify_train_evaluate(photos, plus, colour_teacher, tmp_path, capsys):
    assert main(["verify", str(plus), "--source", f"folder:{photos}"]) == 0
    text = capsys.readouterr().out
    assert text.count("ok ") == 5
    assert "WRONG" not in text
    out = tmp_path / "run"
    argv = ["train", "--model", MODEL, "--data", f"folder:{photos}", "--reinforcement", str(plus), *TRAIN]
    assert main([*argv, "--val", f"folder:{photos}", "--out", str(out)]) == 0
    assert main(["evaluate", str(out), "--data", f"folder:{photos}", "--workers", "0", "--out", f"{out}/e.json"]) == 0
    figures = json.loads((out / "e.json").read_text())
    assert figures["top1"]["count"] == 24
    assert {"top1", "top5", "nll", "ece", "settings", "versions", "data"} < set(figures)
    assert {"balanced_accuracy", "brier", "ece_adaptive", "ece_classwise", "ece_scaled", "aurc"} < set(figures)
    assert set(figures["details"]) == {"classes", "confused", "reliability", "risk_coverage", "ties"}
    capsys.readouterr()
    assert main(["evaluate", str(out), "--data", f"folder:{photos}", "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures
    last = open_run(out).read_metrics()[-1]
    assert last["val"]["top1"]["value"] == pytest.approx(figures["top1"]["value"])


def test_mixed_views_go_all_the_way(photos, colour_teacher, tmp_path, capsys):
    words = ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--views", "3", "--k", "2"]
    plus = str(tmp_path / "mix+")
    assert main(["reinforce", *words, "--policy", "small-mix", "--workers", "0", "--out", plus]) == 0
    for file in sorted(photos.rglob("*.png"))[::4]:
        file.unlink()
    assert main(["verify", plus, "--source", f"folder:{photos}"]) == 0
    assert "WRONG" not in capsys.readouterr().out
    argv = ["train", "--model", MODEL, "--data", f"folder:{photos}", *TRAIN]
    assert main([*argv, "--reinforcement", plus, "--out", str(tmp_path / "a")]) == 0
    assert "of their 54 views give way to another" in capsys.readouterr().err
    assert main([*argv, "--policy", "small-mix", "--val", f"folder:{photos}", "--out", str(tmp_path / "b")]) == 0
    assert open_run(tmp_path / "b").read_metrics()[-1]["val"]["top1"]["count"] == 18


def test_a_run_can_be_replayed_from_its_own_recipe(photos, plus, tmp_path):
    argv = ["train", "--model", MODEL, "--data", f"folder:{photos}", "--reinforcement", str(plus), *TRAIN]
    assert main([*argv, "--out", str(tmp_path / "a"), "--optimizer.weight_decay", "0.1"]) == 0
    assert main(["train", "--recipe", str(tmp_path / "a" / "recipe.yaml"), "--out", str(tmp_path / "b")]) == 0
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert first == second
    assert open_run(tmp_path / "b").settings == open_run(tmp_path / "a").settings


def test_resume_goes_on_and_refuses_other_settings(photos, tmp_path, capsys):
    argv = ["train", "--model", MODEL, "--data", f"folder:{photos}", *TRAIN, "--out", tmp_path / "a"]
    assert main([str(word) for word in argv]) == 0
    code, line = said(capsys, argv)
    assert code == 2
    assert "holds a run already" in line
    assert said(capsys, [*argv, "--resume"])[0] == 0
    code, line = said(capsys, [*argv, "--resume", "--lr", "0.5"])
    assert code == 2
    assert "lr (0.001 there, 0.5 asked for)" in line


def test_misuse_is_told_in_one_line(photos, plus, colour_teacher, tmp_path, capsys):
    source = ["--source", f"folder:{photos}", "--teacher", colour_teacher]
    train = ["train", "--model", MODEL, "--data", f"folder:{photos}", "--out", tmp_path / "r", *TRAIN]
    cases = [
        (["reinforce", *source, "--view", "3", "--out", plus], "did you mean --views"),
        (["reinforce", *source, "--views", "0", "--out", plus], "--views 0"),
        (["reinforce", *source, "--policy", "randag", "--out", tmp_path / "x"], "did you mean randaug"),
        (["reinforce", *source, "--seed", "5", "--k", "2", "--out", plus], "seed"),
        (["reinforce", *source[:3], "timm:resnet17", "--out", tmp_path / "x"], "resnet18"),
        (["verify", tmp_path / "nothing"], "no reinforcement here"),
        ([*train, "--reinforcement", tmp_path / "nothing"], "no reinforcement here"),
        ([*train, "--targets", "reinforced"], "needs --reinforcement"),
        ([*train, "--reinforcement", plus, "--policy", "crop"], "another policy"),
        ([*train, "--optimizer.name", "adamm"], "adam"),
        ([*train, "--lr", "-1"], "lr = -1"),
        (["evaluate", tmp_path / "nothing", "--data", f"folder:{photos}"], "nothing"),
    ]
    for argv, expected in cases:
        code, line = said(capsys, argv)
        assert (code, expected in line) == (2, True), (argv, line)


def flip_last_bit(path: Path) -> None:
    """In place: worker processes may still have the file mapped, and would die of one that is cut."""
    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_training_refuses_what_does_not_belong(photos, plus, tmp_path, capsys, workers, monkeypatch):
    out = tmp_path / "r"
    train = ["train", "--model", MODEL, "--data", f"folder:{photos}", "--reinforcement", plus, *TRAIN, "--out", out]
    train += ["--workers", workers]

    def refused(expected: str) -> None:
        code, line = said(capsys, train)
        assert (code, expected in line) == (2, True), line
        assert not out.exists() or not list(out.iterdir())

    image = photos / "red" / "02.png"
    kept = image.read_bytes()
    image.write_bytes((photos / "red" / "05.png").read_bytes())
    refused("red/02.png: the image has changed since the teacher saw it")
    image.write_bytes(kept)
    image.rename(photos / "red" / "renamed.png")
    refused("red/renamed.png has no stored labels")
    (photos / "red" / "renamed.png").rename(image)
    (photos / "red").rename(photos / "rot")
    refused("other class names (+rot, -red)")
    (photos / "rot").rename(photos / "red")
    flip_last_bit(plus / "part-00000-v0000.safetensors")
    refused("part-00000-v0000.safetensors")
    flip_last_bit(plus / "part-00000-v0000.safetensors")
    card = plus / "reinforcement.json"
    text = card.read_text()
    card.write_text(text.replace('"version": 1', '"version": 2'))
    refused("newer")
    card.write_text(text)
    monkeypatch.setattr("buttress.store.rendering.RENDERER", "another")
    refused("drawn by the renderer opencv-linear version 1")


def test_verify_finds_what_does_not_belong(photos, plus, tmp_path, capsys):
    path = photos / "red" / "02.png"
    shutil.copy(photos / "red" / "05.png", path)
    assert main(["verify", str(plus), "--source", f"folder:{photos}"]) == 1
    assert "1 have changed since the teacher saw them (e.g. red/02.png)" in capsys.readouterr().out
    part = plus / "part-00000-v0000.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    assert main(["verify", str(plus), "--source", f"folder:{photos}"]) == 1
    assert "part-00000-v0000.safetensors" in capsys.readouterr().out


def test_verify_of_an_extended_folder_holds_and_says_how_to_label_the_rest(photos, plus, capsys):
    shutil.copy(photos / "red" / "02.png", photos / "red" / "new.png")
    assert main(["verify", str(plus), "--source", f"folder:{photos}"]) == 0
    text = capsys.readouterr().out
    assert "ok      ids: 24 of 25 samples are reinforced (24 in the reinforcement), 1 have no stored labels; " in text
    assert "run the same buttress reinforce command again to label them" in text
    assert "--missing" not in text
    assert "images: 24 are the ones the teacher saw" in text


def test_verify_of_another_folder_does_not_hold(photos, plus, tmp_path, capsys):
    for name in ("blue", "green", "red"):
        (tmp_path / "other" / name).mkdir(parents=True)
        shutil.copy(photos / "red" / "02.png", tmp_path / "other" / name / "else.png")
    assert main(["verify", str(plus), "--source", f"folder:{tmp_path / 'other'}"]) == 1
    assert "WRONG   ids: 0 of 3 samples are reinforced" in capsys.readouterr().out


def test_the_teachers_own_classes_are_verified_and_trained_on(photos, colour_teacher, tmp_path, capsys):
    (photos / "red").rename(photos / "warm")
    words = ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--views", "3", "--k", "2"]
    plus = tmp_path / "plus"
    assert main(["reinforce", *words, "--classes", "teacher", "--workers", "0", "--out", str(plus)]) == 0
    assert main(["verify", str(plus), "--source", f"folder:{photos}"]) == 0
    text = capsys.readouterr().out
    assert text.count("ok ") == 5
    assert "the classes are the teacher's own, so hard labels are not used" in text
    train = ["train", "--model", MODEL, "--data", f"folder:{photos}", "--reinforcement", str(plus), *TRAIN]
    assert main([*train, "--out", str(tmp_path / "run")]) == 0
    assert open_run(tmp_path / "run").classes == ("blue", "green", "red")
    code, line = said(capsys, [*train, "--missing", "hard", "--out", tmp_path / "r"])
    assert code == 2
    assert "the teacher's own classes" in line


def test_what_the_system_refuses_is_told_in_one_line(photos, colour_teacher, tmp_path, capsys):
    (tmp_path / "file").touch()
    words = ["reinforce", "--source", f"folder:{photos}", "--teacher", colour_teacher, "--workers", "0"]
    code, line = said(capsys, [*words, "--out", tmp_path / "file"])
    assert code == 2
    assert f"{tmp_path / 'file'}: File exists" in line


def test_verify_goes_on_when_the_teacher_is_away(photos, plus, capsys, monkeypatch):
    monkeypatch.setattr("buttress.teachers.python_teacher.import_function", _gone)
    assert main(["verify", str(plus), "--source", f"folder:{photos}"]) == 0
    assert "teacher: not asked again" in capsys.readouterr().out


def _gone(uri):
    from buttress.errors import ModelError

    raise ModelError(f"{uri}: gone")

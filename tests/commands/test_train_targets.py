"""Where the targets of a training come from: a live teacher, a second head, the model of the round before."""

from __future__ import annotations

import json

import pytest
import yaml

from buttress.cli import main
from buttress.models.weights_file import read_weights
from buttress.runs.run import open_run

MODEL = "timm:test_resnet"
QUICK = ["--size", "32", "--epochs", "2", "--batch", "8", "--workers", "0"]


def failure(capsys, *words):
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.splitlines()
    return next(line for line in lines if "error:" in line)


def train(photos, out, *words):
    return main(["train", "--model", MODEL, "--data", f"folder:{photos}", *QUICK, "--out", str(out), *map(str, words)])


@pytest.fixture
def own(photos, colour_teacher, tmp_path):
    """The photos in two classes that the teacher does not know, and a store of its own three classes."""
    two = tmp_path / "two"
    for place, folder in enumerate(sorted(photos.iterdir())):
        target = two / ("warm" if place == 2 else "cold")
        target.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            (target / f"{folder.name}-{file.name}").write_bytes(file.read_bytes())
    words = ["--source", f"folder:{two}", "--teacher", colour_teacher, "--classes", "teacher", "--views", "2"]
    assert main(["reinforce", *words, "--k", "2", "--workers", "0", "--out", str(tmp_path / "two+")]) == 0
    return two, tmp_path / "two+"


def test_a_live_teacher(photos, colour_teacher, tmp_path):
    out = tmp_path / "run"
    assert train(photos, out, "--targets", "online", "--teacher", colour_teacher, "--val", f"folder:{photos}") == 0
    run = open_run(out)
    assert run.classes == ("blue", "green", "red")
    assert run.reinforcement is None
    (told,) = run.data["teachers"].values()
    assert told["uri"] == colour_teacher
    assert main(["train", "--recipe", str(out / "recipe.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_live_training_goes_on_with_the_same_teacher_only(photos, colour_teacher, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(photos, out, "--teacher", colour_teacher) == 0
    assert train(photos, out, "--teacher", colour_teacher, "--resume") == 0
    line = failure(
        capsys, "train", "--model", MODEL, "--data", f"folder:{photos}", *QUICK, "--out", out, "--resume",
        "--teacher", colour_teacher, "--teacher-size", "20",
    )  # fmt: skip
    assert "other settings" in line
    assert "teachers" in line


def test_unlabelled_images_are_taught_by_a_live_teacher_in_its_own_classes(photos, colour_teacher, tmp_path):
    loose = tmp_path / "loose"
    loose.mkdir()
    for folder in photos.iterdir():
        for file in folder.iterdir():
            (loose / f"{folder.name}-{file.name}").write_bytes(file.read_bytes())
    assert train(loose, tmp_path / "run", "--teacher", colour_teacher) == 0
    assert open_run(tmp_path / "run").classes == ("blue", "green", "red")


def test_a_second_head_learns_the_teachers_classes_and_is_dropped(own, tmp_path, capsys):
    two, plus = own
    out = tmp_path / "run"
    assert train(two, out, "--reinforcement", plus, "--head", "auxiliary", "--val", f"folder:{two}") == 0
    assert "24 have a label for the first" in capsys.readouterr().err
    run = open_run(out)
    assert run.classes == ("cold", "warm")
    names = read_weights(out / "model.safetensors").tensors
    assert not [name for name in names if "auxiliary" in name]
    assert main(["evaluate", str(out), "--data", f"folder:{two}", "--workers", "0", "--out", f"{out}/e.json"]) == 0
    assert json.loads((out / "e.json").read_text())["top1"]["count"] == 24


def test_a_training_with_a_second_head_resumes_to_the_same_weights(own, tmp_path):
    two, plus = own
    words = ["--reinforcement", plus, "--head", "auxiliary"]
    assert train(two, tmp_path / "a", *words) == 0
    assert train(two, tmp_path / "b", *words) == 0
    for path in (tmp_path / "b" / "checkpoints").iterdir():
        if path.name != min(entry.name for entry in (tmp_path / "b" / "checkpoints").iterdir()):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    (tmp_path / "b" / "model.safetensors").unlink()
    assert train(two, tmp_path / "b", *words, "--resume") == 0
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


def test_mixed_views_go_with_every_kind_of_target(photos, own, colour_teacher, tmp_path):
    two, _ = own
    words = ["--views", "2", "--k", "2", "--policy", "mix", "--workers", "0", "--teacher", colour_teacher]
    plus, own_plus = str(tmp_path / "mix+"), str(tmp_path / "own-mix+")
    assert main(["reinforce", "--source", f"folder:{photos}", *words, "--out", plus]) == 0
    assert main(["reinforce", "--source", f"folder:{two}", "--classes", "teacher", *words, "--out", own_plus]) == 0
    cases = {
        "hard": (photos, "--policy", "mix", "--label-smoothing", "0.1"),
        "reinforced": (photos, "--reinforcement", plus, "--loss.hard_weight", "0.3", "--loss.truth_floor", "0.2"),
        "auxiliary": (two, "--reinforcement", own_plus, "--head", "auxiliary"),
        "online": (photos, "--policy", "mix", "--teacher", colour_teacher, "--loss.hard_weight", "0.3"),
        "bce": (photos, "--policy", "mix", "--label-smoothing", "0.1", "--loss.name", "bce"),
        "nkd": (photos, "--reinforcement", plus, "--loss.name", "nkd", "--loss.hard_weight", "0.3"),
    }
    for name, (images, *targets) in cases.items():
        out = tmp_path / name
        assert train(images, out, *targets, "--val", f"folder:{images}") == 0, name
        last = open_run(out).read_metrics()[-1]
        assert 0 < last["loss"] < 10, name
        assert last["val"]["top1"]["count"] == 24, name


def test_refine(photos, tmp_path, capsys):
    words = ["refine", "--model", MODEL, "--data", f"folder:{photos}", "--val", f"folder:{photos}", *QUICK]
    words += ["--rounds", "2", "--views", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    text = capsys.readouterr().err
    assert "round 1 of 2" in text
    assert "round 2 of 2" in text
    assert "top-1 0." in text or "top-1 1." in text
    assert open_run(tmp_path / "out" / "round-2").finished
    for number in (1, 2):
        told = yaml.safe_load((tmp_path / "out" / f"round-{number}" / "recipe.yaml").read_text())
        assert (told["model"], told["rounds"], told["epochs"]) == (MODEL, 2, 2)


def test_val_data_are_matched_with_the_classes_of_the_teacher(own, tmp_path, capsys):
    two, plus = own
    (tmp_path / "map.yaml").write_text("cold: blue\nwarm: red\n")
    words = ["--reinforcement", plus, "--val", f"folder:{two}"]
    assert train(two, tmp_path / "run", *words, "--class-map", tmp_path / "map.yaml") == 0
    assert "has 2 of the 3 classes that are learnt" in capsys.readouterr().err
    assert open_run(tmp_path / "run").read_metrics()[-1]["val"]["top1"]["count"] == 24
    start = ["train", "--model", MODEL, "--data", f"folder:{two}", *QUICK, "--out", tmp_path / "other", *words]
    line = failure(capsys, *start)
    assert "no one class of its own for the images' 'cold'" in line
    assert line.endswith("; say which by --class-map FILE.yaml")
    (tmp_path / "sum.yaml").write_text("cold: [blue, green]\nwarm: red\n")
    assert "'cold' is the sum of blue + green" in failure(capsys, *start, "--class-map", tmp_path / "sum.yaml")
    assert not (tmp_path / "other").exists()


def test_misuse_is_told_in_one_line(photos, own, colour_teacher, tmp_path, capsys):
    two, plus = own
    start = ["train", "--model", MODEL, "--data", f"folder:{two}", "--out", tmp_path / "run", *QUICK]
    cases = {
        ("--targets", "online"): "--targets online needs --teacher URI",
        ("--head", "auxiliary"): "--head auxiliary needs --reinforcement DIR",
        ("--reinforcement", plus, "--teacher", colour_teacher): "say which of the two by --targets",
        ("--reinforcement", plus, "--head", "auxiliary", "--missing", "hard"): "--missing hard",
        ("--reinforcement", plus, "--loss.name", "kk"): "loss.name",
        ("--reinforcement", plus, "--loss.hard_weight", "2"): "must lie in 0..1",
        ("--reinforcement", plus, "--label-smoothing", "0.1"): "only hard labels are smoothed",
        ("--teacher", colour_teacher): "no one class of its own",
        ("--teacher-size", "20"): "--teacher-size: is of a live teacher",
        ("--loss.name", "nkd"): "loss.name = nkd: of no effect here",
        ("--loss.truth_floor", "0.5"): "loss.truth_floor = 0.5: of no effect here",
        ("--loss.gamma", "2"): "loss.gamma = 2.0: of no effect here",
        ("--loss.gamma", "2", "--loss.hard_weight", "1"): "loss.gamma = 2.0, loss.hard_weight = 1.0: of no effect here",
        ("--reinforcement", plus, "--loss.hard_weight", "0.5"): "loss.hard_weight = 0.5: of no effect here",
    }
    for words, said in cases.items():
        assert said in failure(capsys, *start, *words), words
        assert not (tmp_path / "run").exists()

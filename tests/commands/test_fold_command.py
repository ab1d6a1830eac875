"""`buttress fold`: a student with the teacher's whole head becomes one of the wanted classes, and scores the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from buttress.cli import main
from buttress.errors import ModelError
from buttress.metrics.score import Scoring, score
from buttress.models.load import load_model
from buttress.models.normalise import normalise
from buttress.runs import Run, open_run
from buttress.runs.fold import fold_run
from buttress.sources import Subset, open_source
from buttress.teachers import open_teacher

WIDE = """
import numpy as np
from colour_teacher import look as quick

def look(views):  # five classes, of which the photos have three
    known = quick(views)
    return np.concatenate([known * 0.8, np.full((len(views), 2), 0.1)], axis=1)

look.size, look.classes = 24, ("blue", "green", "red", "violet", "white")
"""


@pytest.fixture
def student(photos, colour_teacher, tmp_path):
    """A run that learnt a teacher's five classes; the photos have three of them, under names of their own."""
    (Path(os.environ["PYTHONPATH"]) / "wide_teacher.py").write_text(WIDE)
    for old, new in (("blue", "azure"), ("green", "lime"), ("red", "crimson")):
        (photos / old).rename(photos / new)
    (tmp_path / "map.yaml").write_text("azure: blue\nlime: green\ncrimson: red\n")
    words = ["--source", f"folder:{photos}", "--teacher=python:wide_teacher:look", "--classes=teacher", "--views=3"]
    assert main(["reinforce", *words, "--k=5", "--workers=0", "--out", str(tmp_path / "plus")]) == 0
    train = ["--model=timm:test_resnet", "--data", f"folder:{photos}", "--reinforcement", str(tmp_path / "plus")]
    train += ["--size=32", "--epochs=4", "--batch=8", "--lr=0.01", "--workers=0"]
    assert main(["train", *train, "--out", str(tmp_path / "whole")]) == 0
    return tmp_path / "whole"


def fold(student, photos, *words):
    out = str(student.parent / "folded")
    return main(["fold", str(student), "--data", f"folder:{photos}", "--out", out, *map(str, words)])


def figures(run, photos, *words):
    out = run / "figures.json"
    code = main(
        ["evaluate", str(run), "--data", f"folder:{photos}", "--workers=0", "--out", str(out), *map(str, words)]
    )
    assert code == 0
    return {key: value for key, value in json.loads(out.read_text()).items() if key in ("top1", "top5", "nll", "ece")}


def test_the_folded_run_scores_as_the_whole_one_cut_by_the_same_map(student, photos, tmp_path, capsys):
    assert fold(student, photos, "--class-map", tmp_path / "map.yaml") == 0
    folded, whole = open_run(tmp_path / "folded"), open_run(student)
    assert folded.classes == ("azure", "crimson", "lime")
    assert whole.classes == ("blue", "green", "red", "violet", "white")
    mine, theirs = figures(folded.path, photos), figures(student, photos, "--class-map", tmp_path / "map.yaml")
    assert mine["top1"] == theirs["top1"]
    for name in ("nll", "ece"):
        assert mine[name]["value"] == pytest.approx(theirs[name]["value"], rel=1e-5)
    assert mine["nll"]["count"] == 24


def test_its_logits_are_the_cut_ones_and_it_teaches_like_the_whole(student, photos, tmp_path):
    assert fold(student, photos, "--class-map", tmp_path / "map.yaml") == 0
    views = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    logits = []
    for path in (student, tmp_path / "folded"):
        model = open_run(path).load_model()
        with torch.inference_mode():
            logits.append(
                model.module.eval()(normalise(torch.from_numpy(views).permute(0, 3, 1, 2), model.preprocessing))
            )
    torch.testing.assert_close(logits[1], logits[0][:, [0, 2, 1]], rtol=1e-6, atol=1e-6)
    names = ("azure", "crimson", "lime")
    whole = open_teacher(f"run:{student}", precision="fp32", source_classes=names, class_map=tmp_path / "map.yaml")
    folded = open_teacher(f"run:{tmp_path / 'folded'}", precision="fp32", source_classes=names)
    np.testing.assert_allclose(folded.probabilities(views), whole.probabilities(views), rtol=1e-5)
    file = f"timm:test_resnet@{tmp_path / 'folded' / 'model.safetensors'}"
    assert load_model(file).classes == names


def test_where_names_say_it_no_map_is_needed_and_the_whole_is_scored_over_more_classes(student, photos, tmp_path):
    for old, new in (("azure", "blue"), ("lime", "green"), ("crimson", "red")):
        (photos / old).rename(photos / new)
    assert fold(student, photos) == 0
    mine, whole = figures(tmp_path / "folded", photos), figures(student, photos)
    assert mine["top1"]["value"] >= whole["top1"]["value"]
    assert mine["nll"]["value"] < whole["nll"]["value"]  # no mass can fall on violet and white any more


def test_the_folded_run_says_what_it_was(student, photos, tmp_path):
    assert fold(student, photos, "--class-map", tmp_path / "map.yaml") == 0
    folded, whole = open_run(tmp_path / "folded"), open_run(student)
    said = folded.settings.pop("fold")
    assert said["columns"] == [0, 2, 1]
    assert said["outputs"] == 5
    assert said["weights_sha256"] == whole.load_model().weights_sha256
    assert folded.settings == whole.settings
    assert (folded.data, folded.reinforcement, folded.preprocessing) == (
        whole.data,
        whole.reinforcement,
        whole.preprocessing,
    )


def said(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("buttress fold: error: ")
    return lines[-1]


def test_what_cannot_be_folded_is_one_line_and_leaves_no_folder(student, photos, tmp_path, capsys):
    (tmp_path / "sum.yaml").write_text("azure: [blue, violet]\nlime: green\ncrimson: red\n")
    assert fold(student, photos, "--class-map", tmp_path / "sum.yaml") == 2
    assert "'azure' would be the sum of blue + violet" in said(capsys)
    assert fold(student, photos) == 2
    line = said(capsys)
    assert "no one class of its own for the images' 'azure'" in line
    assert line.endswith("; say which by --class-map FILE.yaml")
    assert main(["fold", "timm:test_resnet", "--data", f"folder:{photos}", "--out", str(tmp_path / "folded")]) == 2
    assert "only a run will do here" in said(capsys)
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.png").write_bytes(next(photos.rglob("*.png")).read_bytes())
    assert main(["fold", str(student), "--data", f"folder:{tmp_path}/loose", "--out", str(tmp_path / "folded")]) == 2
    assert "has no classes to keep" in said(capsys)
    assert not (tmp_path / "folded").exists()
    assert fold(student, photos, "--class-map", tmp_path / "map.yaml") == 0
    assert main(["fold", str(tmp_path / "folded"), "--data", f"folder:{photos}", "--out", str(tmp_path / "more")]) == 2
    assert "has just the classes of" in said(capsys)
    assert fold(student, photos, "--class-map", tmp_path / "map.yaml") == 2
    assert "holds a run already" in said(capsys)


def test_a_run_without_class_names_is_folded_by_numbers(photos, tmp_path, capsys):
    model = load_model("timm:test_resnet", num_classes=4, seed=1)
    nameless = Run.of(tmp_path / "whole", model=model, classes=None, settings={}, versions={}, data={}).create()
    nameless.save_weights(model.module.state_dict())
    assert fold(nameless.path, photos) == 2
    assert "does not name its classes" in said(capsys)
    (tmp_path / "map.yaml").write_text("blue: 3\ngreen: 0\nred: 9\n")
    assert fold(nameless.path, photos, "--class-map", tmp_path / "map.yaml") == 2
    assert "has 4 outputs, no number 9" in said(capsys)
    (tmp_path / "map.yaml").write_text("blue: 3\ngreen: 0\nred: 1\n")
    assert fold(nameless.path, photos, "--class-map", tmp_path / "map.yaml") == 0
    assert torch.equal(
        open_run(tmp_path / "folded").load_model().module.get_parameter("fc.weight"),
        model.module.get_parameter("fc.weight")[[3, 0, 1]],
    )


def test_a_compressed_run_is_not_folded(tmp_path):
    model = load_model("timm:test_resnet", num_classes=4, seed=1)
    made = Run.of(
        tmp_path / "a", model=model, classes=tuple("abcd"), settings={}, versions={}, data={}, methods=[{"name": "dkm"}]
    ).create()
    made.save_weights(model.module.state_dict())
    with pytest.raises(ModelError, match="fold first, then compress"):
        fold_run(made, [0, 1], ["a", "b"], tmp_path / "b", versions={})


def test_a_whole_imagenet_head_folds_to_ten_classes(real_data, tmp_path):
    """A run with ImageNet's 1,000 outputs scores photos of ten classes as its folded self does, logit by logit."""
    loaded = load_model(f"timm:mobilenetv2_100@{real_data}/weights/mobilenetv2_100.fp16.safetensors")
    whole = Run.of(tmp_path / "whole", model=loaded, classes=loaded.classes, settings={}, versions={}, data={}).create()
    whole.save_weights(loaded.module.state_dict())
    photos = real_data / "photos" / "imagenette224" / "val"
    assert fold(whole.path, photos) == 0
    source = Subset(open_source(f"folder:{photos}"), range(0, 500, 25))
    assert source.classes is not None
    (tmp_path / "map.yaml").write_text("".join(f"{name}: {name}\n" for name in source.classes))
    cut = score(whole.load_model(), source, Scoring(class_map=tmp_path / "map.yaml"))
    folded = score(open_run(tmp_path / "folded").load_model(), source)
    np.testing.assert_allclose(folded.logits, cut.logits, rtol=1e-5, atol=1e-5)
    assert folded.figures["top1"] == cut.figures["top1"]
    assert (folded.figures["top1"]["value"] or 0) >= 0.8
    size = (tmp_path / "folded" / "model.safetensors").stat().st_size
    assert size < whole.path.joinpath("model.safetensors").stat().st_size - 4 * 1280 * 980

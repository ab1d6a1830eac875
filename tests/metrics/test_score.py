"""Scoring a model on a source: over which classes, and on which device."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from buttress.commands.evaluate import evaluate
from buttress.metrics.evaluate import Predicted
from buttress.metrics.predictions import predict_source
from buttress.metrics.score import note_cut, score, scored_classes
from buttress.metrics.shift import score_shifted
from buttress.models.load import LoadedModel
from buttress.models.preprocessing import Preprocessing
from buttress.sources import open_source

NAMES = ("red", "black", "green", "blue", "white")


@pytest.fixture
def source(photos):
    return open_source(f"folder:{photos}")


def model(uri, classes=NAMES) -> LoadedModel:
    torch.manual_seed(0)
    return LoadedModel(
        module=nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, len(classes))),
        preprocessing=Preprocessing(size=24, mean=(0.5,) * 3, std=(0.2,) * 3, interpolation="bilinear", crop_pct=1.0),
        classes=classes,
        uri=uri,
        weights_sha256=None,
        licence=None,
        pretrained=True,
        name="tiny",
        kwargs={"num_classes": len(classes)},
    )


def test_a_run_is_scored_over_all_its_classes(source, capsys):
    result = score(model("run:somewhere"), source)
    assert result.logits.shape == (24, 5)
    assert [NAMES[label] for label in result.labels] == [name.split("/")[0] for name in result.ids]
    exact = result.logits.astype(np.float64)
    nll = np.log(np.exp(exact).sum(1)) - exact[np.arange(24), result.labels]
    assert result.figures["nll"]["value"] == pytest.approx(nll.mean())
    assert capsys.readouterr().err == ""


def test_a_general_model_is_cut_to_the_data_and_says_so(source, capsys):
    whole, cut = score(model("run:somewhere"), source), score(model("timm:tiny@w.safetensors"), source)
    np.testing.assert_allclose(cut.logits, whole.logits[:, [3, 2, 0]], rtol=1e-6)
    assert cut.labels.tolist() == list(source.labels)
    general = model("timm:tiny@w.safetensors")
    note_cut(general, scored_classes(general, source))
    assert "scored over the 3 of its 5 classes that the data has" in capsys.readouterr().err


def test_a_run_with_its_classes_in_another_order_is_not_cut(source, capsys):
    assert score(model("run:somewhere", ("red", "green", "blue")), source).logits.shape == (24, 3)
    assert capsys.readouterr().err == ""


def test_a_run_is_cut_to_classes_that_are_all_that_may_be_answered(source, capsys):
    source.closed_classes = True
    whole, cut = score(model("timm:tiny@w.safetensors"), source), score(model("run:somewhere"), source)
    np.testing.assert_array_equal(cut.logits, whole.logits)
    assert cut.classes == ("blue", "green", "red")
    run = model("run:somewhere")
    note_cut(run, scored_classes(run, source))
    assert "run:somewhere: scored over the 3 of its 5 classes that the data has" in capsys.readouterr().err


@pytest.mark.parametrize(("closed", "classes"), [(True, ("blue", "green", "red")), (False, NAMES)])
def test_moved_images_and_tables_of_predictions_are_of_the_same_classes(source, monkeypatch, closed, classes):
    source.closed_classes = closed
    found = []

    def spy(*args, **given):
        found.append(scored_classes(*args, **given))
        return found[-1]

    monkeypatch.setattr("buttress.metrics.shift.scored_classes", spy)
    score_shifted(model("run:somewhere"), source)
    assert found[0].classes == classes
    assert predict_source(model("run:somewhere"), source).classes == classes


@pytest.mark.parametrize(("uri", "scored"), [("run:somewhere", 5), ("timm:tiny@w.safetensors", 3)])
def test_the_figures_say_over_how_many_classes_they_are(photos, tmp_path, monkeypatch, uri, scored):
    monkeypatch.setattr("buttress.runs.resolve.resolve_model", lambda *_, **__: model(uri))
    monkeypatch.setattr("buttress.runs.resolve.levels_of", lambda _: ())
    evaluate(uri, data=f"folder:{photos}", workers=0, out=tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text())["settings"]["classes_scored"] == scored


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
@pytest.mark.parametrize("uri", ["run:somewhere", "timm:tiny@w.safetensors"])
def test_it_runs_on_the_gpu_where_there_is_one(source, monkeypatch, there, device, uri):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)

    def ask(*_, **given):
        asked.append(given["device"])
        return Predicted(torch.zeros(1, given["classes"]), torch.zeros(1, dtype=torch.int64), ("a",))

    monkeypatch.setattr("buttress.metrics.score.predictions", ask)
    score(model(uri), source)
    assert asked == [device]

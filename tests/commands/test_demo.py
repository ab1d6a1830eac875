"""`buttress demo`: a fair comparison whose figures can be recomputed, and which owns up where there is no gain."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from buttress.commands import demo as demo_module
from buttress.commands.demo import demo
from buttress.errors import SettingsError, SourceError
from buttress.store.reader import open_reinforcement
from buttress.store.writer import PartColumns, write_card, write_part
from buttress.training.comparison import Arm, compare, gain_of, row_of
from buttress.training.comparison_sets import digit_sets
from buttress.training.data import TrainingData
from buttress.training.settings import TrainingSettings

TEACHERS = '''
"""A logistic regression on the demo's own teacher images, and one that always says the next digit."""
import numpy as np
from sklearn.linear_model import LogisticRegression

from buttress.sources import id_hashes
from buttress.training.comparison_sets import digit_sets
from buttress.views.policy import Policy, RandomResizedCrop
from buttress.views.render import Renderer

images = digit_sets().teacher
renderer = Renderer(Policy((RandomResizedCrop(scale=(0.6, 1.0)),)), 1)
views = np.stack([renderer.views(images[i].data, int(h), range(3), 8) for i, h in enumerate(id_hashes(images.ids))])
model = LogisticRegression(max_iter=300).fit(views[..., 0].reshape(-1, 64) / 255.0, np.repeat(images.labels, 3))


def teach(views_BHWC):
    return model.predict_proba(views_BHWC[..., 0].reshape(-1, 64) / 255.0).astype(np.float32)


def mislead(views_BHWC):
    return np.roll(teach(views_BHWC), 1, axis=1)


teach.size = mislead.size = 8
teach.classes = mislead.classes = tuple("0123456789")
'''
TINY: dict[str, Any] = {"size": 16, "views": 6, "epochs": 6, "seeds": 2}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """The module of the teachers, importable."""
    folder = tmp_path_factory.mktemp("teachers")
    (folder / "digit_teachers.py").write_text(TEACHERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "python:digit_teachers"


@pytest.fixture(scope="module")
def shown(teachers, tmp_path_factory):
    """A tiny demo with its exit code and folder."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    return demo(teacher=f"{teachers}:teach", out=out, **TINY), out


def results_of(out):
    return json.loads((out / "results.json").read_text())


def softmax(logits_NC):
    powers_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return powers_NC / powers_NC.sum(axis=1, keepdims=True)


def recomputed(logits_NC, labels_N):
    """Top-1, ECE of 15 bins and NLL from their definitions."""
    probabilities_NC = softmax(logits_NC.astype(np.float64))
    confidence_N, right_N = probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == labels_N
    bin_N = np.minimum((confidence_N * 15).astype(int), 14)
    gaps = [abs(right_N[bin_N == b].mean() - confidence_N[bin_N == b].mean()) * (bin_N == b).mean() for b in set(bin_N)]
    nll = -np.log(probabilities_NC[np.arange(len(labels_N)), labels_N]).mean()
    return {"top1": right_N.mean(), "ece": sum(gaps), "nll": nll}


def test_the_sets_share_no_image():
    sets = digit_sets()
    assert sets.teacher is not None
    assert sets.clean is not None
    groups = [sets.train, sets.test, sets.teacher]
    ids = [set(source.ids) for source in groups]
    pixels = [{bytes(np.asarray(source[i].data)) for i in range(len(source))} for source in groups]
    for one in range(3):
        for other in range(one):
            assert not ids[one] & ids[other]
            assert not pixels[one] & pixels[other]
    assert [len(source) for source in groups] == [300, 600, 897]
    assert sets.clean.ids == sets.train.ids


def test_a_fifth_of_the_labels_is_wrong_and_always_the_same_ones():
    sets, again = digit_sets(), digit_sets()
    assert sets.planted == 60
    np.testing.assert_array_equal(sets.train.labels, again.train.labels)


def test_the_tiny_demo_shows_the_gain(shown, capsys):
    code, out = shown
    results = results_of(out)
    assert code == 0
    assert results["gain"]["holds"]
    assert results["gain"]["top1"] > 0.03
    assert [row["name"] for row in results["rows"]] == ["raw", "reinforced", "clean"]
    assert {row["steps"] for row in results["rows"]} == {TINY["epochs"] * 300 // 50}


def test_every_figure_follows_from_the_saved_predictions(shown):
    _, out = shown
    results = results_of(out)
    saved = safetensors.numpy.load_file(out / "predictions.safetensors")
    np.testing.assert_array_equal(saved["labels"], digit_sets().test.labels)
    for row in results["rows"]:
        found = [recomputed(saved[f"{row['name']}/{entry['seed']}"], saved["labels"]) for entry in row["seeds"]]
        for name in ("top1", "ece", "nll"):
            values = [figures[name] for figures in found]
            np.testing.assert_allclose([entry[name] for entry in row["seeds"]], values, atol=1e-5)
            assert row[name]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
            assert row[name]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
        bins = [entry for entry in row["reliability"] if entry["count"]]
        assert sum(entry["count"] for entry in bins) == 2 * 600
        right = sum(entry["count"] * entry["accuracy"] for entry in bins)
        assert right / 1200 == pytest.approx(row["top1"]["mean"], abs=1e-6)
        assert row["risk_coverage"]["coverage"][-1] == 1
        assert row["risk_coverage"]["risk"][-1] == pytest.approx(1 - row["top1"]["mean"], abs=1e-6)
    raw, reinforced, clean = results["rows"]
    for name in ("top1", "ece", "nll"):
        assert results["gain"][name] == pytest.approx(reinforced[name]["mean"] - raw[name]["mean"])
    assert results["gain"]["clean_top1"] == pytest.approx(clean["top1"]["mean"] - raw["top1"]["mean"])


def test_the_store_and_the_views_of_the_page_are_those_of_the_reinforcement(shown):
    _, out = shown
    results, store = results_of(out), open_reinforcement(out / "reinforcement")
    assert results["store"]["bytes"] == sum(file.stat().st_size for file in (out / "reinforcement").iterdir())
    assert (results["store"]["views"], results["store"]["samples"]) == (6, 300)
    sets = digit_sets()
    assert sets.clean is not None
    for entry in results["views"]:
        row = sets.train.ids.index(entry["id"])
        values, ids, _ = store.target(row, entry["view"])
        assert [each["name"] for each in entry["top"]] == [str(i) for i in ids[:3]]
        assert [each["probability"] for each in entry["top"]] == pytest.approx(values[:3])
        assert entry["label"] == str(sets.train.labels[row])
        assert entry["planted"] == (sets.train.labels[row] != sets.clean.labels[row])
    assert sum(entry["planted"] for entry in results["views"]) == 6
    assert "points of top-1 from the same images" in (out / "report.html").read_text()


def shuffled(folder: Path, out: Path):
    """The reinforcement with every row's stored labels given to another row."""
    store = open_reinforcement(shutil.copytree(folder, out))
    card, (part,) = store.card, store.card.parts
    order = np.random.default_rng(0).permutation(store.rows)
    labels_VNS = np.stack([store.records(order, view) for view in range(store.views)])
    columns = PartColumns(id_hashes=store.id_hashes, hard_labels=store.hard_labels, content_hashes=store.content_hashes)
    entry = write_part(
        out,
        row_block=part.row_block,
        first_row=0,
        first_view=0,
        labels_VNS=labels_VNS,
        columns=columns,
        settings_digest=card.settings_digest,
    )
    write_card(out, replace(card, parts=(entry,)))
    return open_reinforcement(out)


def test_with_shuffled_labels_the_gain_vanishes(shown, tmp_path):
    _, out = shown
    store = shuffled(out / "reinforcement", tmp_path / "shuffled")
    sets = digit_sets()
    (outcome,) = compare(
        [Arm(name="shuffled", title="", data=TrainingData(source=sets.train, reinforcement=store))],
        model=demo_module.DIGITS.model,
        size=TINY["size"],
        settings=TrainingSettings(epochs=TINY["epochs"], batch=50, lr=demo_module.DIGITS.lr, workers=0),
        seeds=[0],
        test=sets.test,
        out=tmp_path,
    )
    row = row_of(outcome)
    assert not gain_of(results_of(out)["rows"][0], row)["holds"]
    assert row["top1"]["mean"] < 0.3
    assert row["top1"]["sd"] is None


def test_without_gain_the_demo_says_so_and_exits_1(teachers, tmp_path, capsys):
    tiny = {**TINY, "seeds": 1}
    assert demo(teacher=f"{teachers}:mislead", out=tmp_path / "demo", **tiny) == 1
    assert "No gain here" in capsys.readouterr().out
    assert "No gain here" in (tmp_path / "demo" / "report.html").read_text()
    assert not results_of(tmp_path / "demo")["gain"]["holds"]


def test_the_demo_trains_its_own_teacher_on_images_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_module, "TEACHER_EPOCHS", 1)
    demo(out=tmp_path / "demo", size=16, views=1, epochs=1, seeds=1)
    results = results_of(tmp_path / "demo")
    assert results["teacher"]["name"] == f"run:{tmp_path / 'demo' / 'teacher'}"
    assert 0 < results["teacher"]["top1"] <= 1
    run = json.loads((tmp_path / "demo" / "teacher" / "run.json").read_text())
    assert run["data"]["count"] == 897
    # A second time the results are replaced.
    (tmp_path / "demo" / "report.html").write_text("old")
    demo(out=tmp_path / "demo", size=16, views=1, epochs=1, seeds=1)
    assert (tmp_path / "demo" / "report.html").read_text() != "old"


def test_a_folder_of_ones_own(teachers, tmp_path):
    clean = digit_sets().clean
    assert clean is not None
    for index in range(120):
        sample = clean[index]
        assert isinstance(sample.data, np.ndarray)
        path = tmp_path / "photos" / str(sample.label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.data).save(path)
    tiny: dict[str, Any] = {"size": 16, "views": 2, "epochs": 1, "seeds": 1, "batch": 32, "model": "timm:test_mambaout"}
    demo(data=str(tmp_path / "photos"), teacher=f"{teachers}:teach", out=tmp_path / "demo", policy="small", **tiny)
    results = results_of(tmp_path / "demo")
    assert [row["name"] for row in results["rows"]] == ["raw", "reinforced"]
    assert (results["data"]["train"], results["data"]["test"], results["data"]["planted"]) == (96, 24, 0)
    assert results["gain"]["clean_top1"] is None
    assert results["command"].startswith(f"buttress demo --data {tmp_path / 'photos'} --teacher ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "folder:photos"}, "--data needs --teacher"),
        ({"val": "folder:photos"}, "--val belongs to --data"),
        ({"seeds": 0}, "at least 1 training per row"),
        ({"teacher": "run:{out}/teacher"}, "lies in {out}"),
    ],
)
def test_misuse_is_refused_before_anything_is_written(given, message, tmp_path):
    out = tmp_path / "demo"
    given = {name: value.format(out=out) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(SettingsError, match=message.format(out=out)):
        demo(out=out, **given)
    assert not out.exists()


def folder_of(images: dict[str, int], root: Path) -> Path:
    """Class sub-folders ("" = none) with so many images each."""
    for name, count in images.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ({"": 5}, None, "has no classes to compare by; put the images in class sub-folders"),
        ({"a": 5}, None, "has one class, a; there is nothing to tell apart"),
        ({"a": 1, "b": 1}, None, "no labelled images to score on once a fifth of 2 images is held back; .* --val"),
        ({"a": 3, "b": 3}, {"a": 1, "c": 1}, r"its classes \(a, c\) are not those of the training images \(a, b\)"),
        ({"a": 3, "b": 3}, {"": 2}, r"its classes \(none\) are not"),
    ],
)
def test_sets_that_allow_no_comparison_are_refused_up_front(train, val, message, teachers, tmp_path):
    given: dict[str, Any] = {"data": str(folder_of(train, tmp_path / "train")), "teacher": f"{teachers}:teach"}
    if val is not None:
        given["val"] = str(folder_of(val, tmp_path / "val"))
    with pytest.raises(SourceError, match=message):
        demo(out=tmp_path / "demo", **given)
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_is_not_a_demos_is_left_alone(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(SettingsError, match="name another --out"):
        demo(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

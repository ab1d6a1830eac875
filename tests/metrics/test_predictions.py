"""Predictions of every image, and the tables they are written to."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from buttress.errors import ModelError, SettingsError, SourceError
from buttress.metrics.predictions import Predictions, predict_source
from buttress.metrics.predictions_file import check_ready, column_names, write_predictions
from buttress.metrics.score import score
from buttress.models.load import LoadedModel, at_size, load_model
from buttress.sources import ArraySource, Relabelled, Subset

CLASSES = ("zero", "one", "two", "three", "four", "five", "six")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """An untrained network of seven classes that says which they are."""
    loaded = at_size(load_model("timm:test_resnet", num_classes=7, seed=0), 32)
    return replace(loaded, classes=CLASSES)


@pytest.fixture(scope="module")
def pictures() -> ArraySource:
    """Forty noisy pictures of 24 pixels; every fifth has no label."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 7, 40)
    labels[::5] = -1
    images = rng.integers(0, 256, (40, 24, 24, 3), np.uint8)
    return ArraySource(images, labels, ids=[f"{i:02d}" for i in range(40)], classes=CLASSES)


class Damaged:
    """A source of which some images cannot be decoded."""

    def __init__(self, source, bad):
        self.source, self.bad = source, bad
        self.uri, self.ids, self.classes, self.labels = source.uri, source.ids, source.classes, source.labels

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        sample = self.source[index]
        return replace(sample, data=b"no image") if index in self.bad else sample


def test_every_image_has_a_row_in_the_order_of_the_source(model, pictures):
    found = predict_source(model, pictures)
    assert found.ids == tuple(pictures.ids)
    assert found.top_NK.shape == found.probabilities_NK.shape == (40, 5)
    assert found.labels == tuple(CLASSES[label] if label >= 0 else None for label in pictures.labels)
    assert found.undecodable == 0
    assert (np.diff(found.probabilities_NK, axis=1) <= 0).all()
    assert all(len(set(row)) == 5 for row in found.top_NK.tolist())


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (7, 0), (64, 2)])
def test_batch_size_and_workers_change_nothing(model, pictures, batch, workers):
    one = predict_source(model, pictures, batch=16)
    other = predict_source(model, pictures, batch=batch, workers=workers)
    np.testing.assert_array_equal(one.top_NK, other.top_NK)
    np.testing.assert_allclose(one.probabilities_NK, other.probabilities_NK, atol=1e-6)


def test_its_top_1_is_that_of_the_score(model, pictures):
    found = predict_source(model, pictures)
    pairs = [(label, CLASSES[top]) for label, top in zip(found.labels, found.top_NK[:, 0], strict=True) if label]
    figure = score(model, pictures).figures["top1"]
    assert figure["count"] == len(pairs) == 32
    assert figure["value"] == sum(label == top for label, top in pairs) / len(pairs)


def test_probabilities_are_the_softmax_over_all_classes(model, pictures):
    found = predict_source(model, pictures, top_k=100)
    assert found.top_NK.shape == (40, 7)
    np.testing.assert_allclose(found.probabilities_NK.sum(axis=1), 1, atol=1e-6)
    few = predict_source(model, pictures, top_k=2)
    np.testing.assert_allclose(few.probabilities_NK, found.probabilities_NK[:, :2], atol=1e-7)


def test_without_labels_the_models_own_classes_are_predicted(model, pictures):
    found = predict_source(model, Relabelled(pictures, None))
    labelled = predict_source(model, pictures)
    assert set(found.labels) == {None}
    assert found.classes == CLASSES
    np.testing.assert_array_equal(found.top_NK, labelled.top_NK)


def test_folders_that_are_no_classes_are_not_taken_for_them(model, pictures, capsys):
    dated = ArraySource(pictures.images, np.zeros(40, int), classes=["2021"], uri="folder:trips")
    found = predict_source(model, dated)
    assert found.classes == CLASSES
    assert set(found.labels) == {"2021"}
    assert "folder:trips: none of its folders is a class" in capsys.readouterr().err


def test_one_class_that_the_model_does_not_know_is_refused(model, pictures):
    odd = ArraySource(pictures.images, np.zeros(40, int), classes=["zero", "wun"])
    with pytest.raises(ModelError, match="wun"):
        predict_source(model, odd)


def test_a_class_map_names_the_classes_of_unlabelled_images(model, pictures, tmp_path):
    (tmp_path / "map.yaml").write_text("small: [zero, one]\nlarge: [five, six]\n")
    found = predict_source(model, Relabelled(pictures, None), class_map=tmp_path / "map.yaml")
    assert found.classes == ("small", "large")
    np.testing.assert_allclose(found.probabilities_NK.sum(axis=1), 1, atol=1e-6)


def test_an_image_that_cannot_be_decoded_has_an_empty_row(model, pictures):
    found = predict_source(model, Damaged(pictures, {3, 20}), max_bad=0.1, batch=8)
    whole = predict_source(model, pictures, batch=8)
    assert found.undecodable == 2
    assert np.flatnonzero(found.top_NK[:, 0] < 0).tolist() == [3, 20]
    assert np.isnan(found.probabilities_NK[[3, 20]]).all()
    others = np.setdiff1d(np.arange(40), [3, 20])
    np.testing.assert_array_equal(found.top_NK[others], whole.top_NK[others])
    with pytest.raises(SourceError, match="2 of 40 images cannot be decoded"):
        predict_source(model, Damaged(pictures, {3, 20}), max_bad=0.04)


def test_fewer_than_one_class_is_refused(model, pictures):
    with pytest.raises(SettingsError, match="--top-k 0"):
        predict_source(model, Subset(pictures, [0]), top_k=0)


@pytest.fixture
def found() -> Predictions:
    """Three rows whose names need quotes; the last image could not be decoded."""
    return Predictions(
        ids=('a, "b".png', "ü\n2.png", "gone.png"),
        labels=("x", None, "y"),
        classes=("x", "y, z"),
        top_NK=np.array([[0, 1], [1, 0], [-1, -1]], np.int32),
        probabilities_NK=np.array([[0.75, 0.25], [0.5000004, 0.4999996], [np.nan, np.nan]], np.float32),
    )


def test_csv_is_what_rfc_4180_says(found, tmp_path):
    write_predictions(tmp_path / "p.csv", found)
    data = (tmp_path / "p.csv").read_bytes()
    assert data.startswith(b"id,label,class,probability,class_2,probability_2\r\n")
    assert b'"a, ""b"".png",x,x,0.750000,"y, z",0.250000\r\n' in data
    assert data.endswith(b"gone.png,y,,,,\r\n")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))
    assert rows[1] == {
        "id": "ü\n2.png",
        "label": "",
        "class": "y, z",
        "probability": "0.500000",
        "class_2": "x",
        "probability_2": "0.500000",
    }


def test_parquet_holds_the_same_columns_with_nulls(found, tmp_path):
    write_predictions(tmp_path / "p.PARQUET", found)
    table = pq.read_table(tmp_path / "p.PARQUET")
    assert table.column_names == column_names(2)
    assert [str(kind) for kind in table.schema.types] == ["string", "string", "string", "float", "string", "float"]
    assert table.to_pylist()[0] == {
        "id": 'a, "b".png',
        "label": "x",
        "class": "x",
        "probability": 0.75,
        "class_2": "y, z",
        "probability_2": 0.25,
    }
    assert table["label"].to_pylist() == ["x", None, "y"]
    assert list(table.to_pylist()[2].values()) == ["gone.png", "y", None, None, None, None]


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    for name in ("p.xlsx", "p", "p.csv.gz"):
        with pytest.raises(SettingsError, match=r"neither \.csv nor \.parquet"):
            check_ready(Path(name))
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(SettingsError, match="is a folder"):
        check_ready(tmp_path / "p.csv")
    monkeypatch.setattr("buttress.metrics.predictions_file.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install buttress\[parquet\]"):
        check_ready(Path("p.parquet"))
    check_ready(Path("p.csv"))


def test_a_table_that_fails_leaves_the_old_one(found, tmp_path, monkeypatch):
    (tmp_path / "p.csv").write_text("old")
    monkeypatch.setattr("buttress.metrics.predictions_file._rows", lambda _: iter([1]))
    with pytest.raises(Exception, match="iterable"):
        write_predictions(tmp_path / "p.csv", found)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
    assert (tmp_path / "p.csv").read_text() == "old"

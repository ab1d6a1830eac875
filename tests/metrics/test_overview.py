"""A reinforcement at a glance."""

from __future__ import annotations

import numpy as np
import pytest

from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.metrics.health import examine
from buttress.metrics.overview import BINS, overview
from buttress.sources import Relabelled, open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.views.presets import preset


@pytest.fixture
def source(photos):
    return open_source(f"folder:{photos}")


@pytest.fixture
def store(source, colour_teacher, tmp_path):
    spec = TeacherSpec(uri=colour_teacher, source_classes=tuple(source.classes))
    label_source(source, spec, preset("crop"), LabelSettings(views=4, k=2, workers=0, truth=True), tmp_path / "plus")
    return open_reinforcement(tmp_path / "plus")


def test_it_tells_size_certainty_and_agreement(source, store):
    labels = np.array(source.labels)
    labels[:2], labels[2] = 2, -1  # two of the blue ones under red, one without a label
    health = examine(Relabelled(source, labels), store)
    figures = overview(health)
    size = sum(path.stat().st_size for path in store.path.iterdir())
    said = {"samples": 24, "views": 4, "k": 2, "classes": 3, "bytes": size, "bytes_per_view": store.codec.stride + 1}
    assert figures["store"] == said
    assert (figures["labelled"], figures["agreement"]) == (23, pytest.approx(21 / 23))
    for name, values in (("confidence", health.said.values_NK[:, 0]), ("entropy", health.said.entropy_N)):
        bins = figures[name]["bins"]
        assert figures[name]["mean"] == pytest.approx(values.mean())
        assert (len(bins), sum(bin["count"] for bin in bins)) == (BINS, 24)
        assert bins[0]["count"] == ((values >= 0) & (values < bins[0]["high"])).sum()
    assert [(row["name"], row["labelled"], row["taught"]) for row in figures["classes"]] == [
        ("red", 10, 8),
        ("green", 8, 8),
        ("blue", 5, 8),
    ]
    assert sum(row["flagged"] for row in figures["classes"]) == health.flagged


def test_without_labels_there_is_nothing_to_agree_with(source, store):
    figures = overview(examine(Relabelled(source, None), store))
    assert (figures["labelled"], figures["agreement"]) == (0, None)
    assert [row["labelled"] for row in figures["classes"]] == [0, 0, 0]

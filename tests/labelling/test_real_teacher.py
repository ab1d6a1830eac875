"""A real teacher on real photos: what is stored is what it said, to a ten-thousandth of a nat."""

from __future__ import annotations

import re

import numpy as np
import pytest

from buttress.labelling.label import label_source
from buttress.labelling.rerun import rerun, teacher_of
from buttress.labelling.settings import LabelSettings
from buttress.loading.coverage import match
from buttress.sources import Subset, id_hash, open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.views.presets import preset
from buttress.views.render import Renderer

VIEWS = 8


@pytest.fixture
def source(real_data):
    return Subset(open_source(f"folder:{real_data}/photos/imagenette224/val"), range(0, 500, 32))


def teacher(real_data, source, classes):
    uri = f"timm:tf_efficientnet_lite2@{real_data}/weights/tf_efficientnet_lite2.fp16.safetensors"
    return TeacherSpec(uri=uri, size=160, classes=classes, source_classes=source.classes)


@pytest.mark.parametrize(("classes", "stride"), [("teacher", 23), ("source", 14)])
def test_quantising_costs_next_to_nothing(real_data, source, tmp_path, capsys, classes, stride):
    spec = teacher(real_data, source, classes)
    settings = LabelSettings(views=VIEWS, workers=0, batch=VIEWS)
    label_source(source, spec, preset("randaug"), settings, tmp_path / "plus")
    store = open_reinforcement(tmp_path / "plus")
    assert store.codec.stride == stride
    size = sum(path.stat().st_size for path in store.path.iterdir())
    assert size <= stride * len(source) * VIEWS + 24 * len(source) + 64 * 1024
    if classes == "source":
        assert re.search(r"teacher agrees with your labels on 1[456] of 16 images", capsys.readouterr().err)
    losses = losses_of(source, store, teacher_of(store).open())
    print(f"C = {len(store.classes)}: KL mean {losses.mean():.1e}, p99 {np.quantile(losses, 0.99):.1e} nat")
    assert losses.mean() <= 1e-4
    assert np.quantile(losses, 0.99) <= 1e-3
    again = rerun(source, store, match(source, store).rows, teacher_of(store).open(), 32)
    assert again.mean <= 0.02


def losses_of(source, store, opened):
    """KL(said || read back) of every view over the k kept classes and the rest, batches as when it was labelled."""
    renderer = Renderer(store.card.policy, store.card.seed)
    losses = []
    for row in range(len(source)):
        pixels = renderer.views(source[row].data, id_hash(source[row].id), range(VIEWS), 160)
        said_VC = opened.probabilities({160: pixels}).astype(np.float64)
        values, ids, rest = store.targets(np.full(VIEWS, row), np.arange(VIEWS))
        kept = np.take_along_axis(said_VC, ids.astype(np.int64), axis=1)
        said = np.column_stack([kept, np.maximum(1 - kept.sum(axis=1), 0)])
        read = np.column_stack([values, rest]).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(said > 0, said * np.log(said / np.maximum(read, 1e-12)), 0)
        losses.append(terms.sum(axis=1))
    return np.concatenate(losses)

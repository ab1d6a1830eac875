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
from buttress.teachers import EnsembleSpec, TeacherSpec
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


def test_two_real_teachers_are_stored_as_the_mean_of_what_they_say(real_data, source, tmp_path):
    few = Subset(source, range(0, 16, 5))
    names, sizes = ("tf_efficientnet_lite0", "mobilenetv2_100"), (128, 160)
    members = tuple(
        TeacherSpec(uri=f"timm:{name}@{real_data}/weights/{name}.fp16.safetensors", size=size, classes="teacher")
        for name, size in zip(names, sizes, strict=True)
    )
    spec = EnsembleSpec(members=members, weights=(2.0, 1.0))
    label_source(few, spec, preset("crop"), LabelSettings(views=2, workers=0, k=10), tmp_path / "plus")
    store = open_reinforcement(tmp_path / "plus")
    assert store.card.teachers[0]["mean"] != store.card.teachers[1]["mean"]
    alone = [member.open() for member in members]
    renderer = Renderer(store.card.policy, 0)
    apart = 0.0
    for row in range(len(few)):
        data, id_ = few[row].data, id_hash(few[row].id)
        said = [one.probabilities(renderer.views(data, id_, [1], one.size))[0].astype(np.float64) for one in alone]
        values, ids, _ = store.targets(np.array([row]), 1)
        np.testing.assert_allclose(values[0], (2 * said[0] + said[1])[ids[0]] / 3, rtol=0.05, atol=1e-5)
        apart = max(apart, float(np.abs(said[0] - said[1]).max()))
    assert apart > 0.05, "the two agree too well to tell a mean from either"
    again = rerun(few, store, match(few, store).rows, teacher_of(store).open(), 8)
    assert again.largest <= 0.02


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

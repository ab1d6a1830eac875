"""Label refinery: rounds that build on one another, and go on where they stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from buttress.errors import SettingsError
from buttress.labelling.settings import LabelSettings
from buttress.runs.resolve import resolve_model
from buttress.sources import open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import open_teacher
from buttress.training.refinery import Refinery
from buttress.training.settings import LossSettings, TrainingSettings
from buttress.views.presets import preset


def refinery(photos, out, **changed):
    values = {
        "source": open_source(f"folder:{photos}"),
        "policy": preset("small"),
        "model": "timm:test_resnet",
        "out": out,
        "rounds": 3,
        "training": TrainingSettings(epochs=1, batch=8, workers=0, label_smoothing=0.1),
        "labelling": LabelSettings(views=2, k=2, workers=0),
        "size": 32,
    }
    return Refinery(**{**values, **changed})


def test_every_round_learns_what_the_round_before_says(photos, tmp_path):
    runs = list(refinery(photos, tmp_path / "out").run())
    assert [run.path.name for run in runs] == ["round-1", "round-2", "round-3"]
    stores = [open_reinforcement(tmp_path / "out" / f"round-{number}+") for number in (1, 2)]
    assert runs[0].reinforcement is None
    assert [run.reinforcement for run in runs[1:]] == [store.card.to_json()["digest"] for store in stores]
    assert runs[0].settings["label_smoothing"] == 0.1
    assert runs[1].settings["label_smoothing"] == 0.0


def test_the_refinery_is_asked_in_evaluation_mode_and_stays_as_it_is(photos, tmp_path):
    """What is stored is what the finished run says in evaluation mode; asking does not move its batch statistics."""
    runs = list(refinery(photos, tmp_path / "out", rounds=2).run())
    before = (runs[0].path / "model.safetensors").read_bytes()
    source, store = open_source(f"folder:{photos}"), open_reinforcement(tmp_path / "out" / "round-1+")
    teacher = open_teacher(f"run:{runs[0].path}", source_classes=source.classes)
    loaded = resolve_model(f"run:{runs[0].path}")
    buffers = {name: value.clone() for name, value in loaded.module.named_buffers()}
    from buttress.views.render import Renderer

    renderer = Renderer(store.card.policy, store.card.seed)
    from buttress.sources import id_hash

    views = np.concatenate([renderer.views(source[i].data, id_hash(source.ids[i]), [1], 32) for i in range(6)])
    fresh = teacher.probabilities(views)
    values, ids, _ = store.targets(np.arange(6), 1)
    np.testing.assert_allclose(np.take_along_axis(fresh, ids.astype(np.int64), 1), values, atol=0.03)
    assert not loaded.module.training or all(
        torch.equal(buffers[name], value) for name, value in loaded.module.named_buffers()
    )
    assert (runs[0].path / "model.safetensors").read_bytes() == before


def test_run_again_it_does_only_what_is_missing(photos, tmp_path):
    list(refinery(photos, tmp_path / "out", rounds=2).run())
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(list(refinery(photos, tmp_path / "out").run())) == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole = (tmp_path / "out" / "round-3" / "model.safetensors").read_bytes()
    list(refinery(photos, tmp_path / "at-once").run())
    assert (tmp_path / "at-once" / "round-3" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (LossSettings(gamma=2.0, auxiliary_weight=3.0), "loss.gamma = 2.0, loss.auxiliary_weight = 3.0: of no effect"),
        (LossSettings(auxiliary_weight=0.0), "loss.auxiliary_weight = 0.0: of no effect"),
    ],
)
def test_a_loss_setting_of_no_effect_is_refused_before_the_first_round(photos, tmp_path, loss, said):
    training = TrainingSettings(epochs=1, batch=8, workers=0, loss=loss)
    with pytest.raises(SettingsError, match=said):
        refinery(photos, tmp_path / "out", training=training)


def test_one_round_is_no_refinery(photos, tmp_path):
    with pytest.raises(SettingsError, match="--rounds 1: at least 2"):
        refinery(photos, tmp_path / "out", rounds=1)

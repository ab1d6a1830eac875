"""Label refinery: rounds that build on one another, and go on where they stopped."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from buttress.errors import SettingsError
from buttress.labelling.settings import LabelSettings
from buttress.models.normalise import normalise
from buttress.runs.resolve import resolve_model
from buttress.sources import id_hash, open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers import TeacherSpec
from buttress.teachers.network import NetworkTeacher
from buttress.training.refinery import Refinery
from buttress.training.settings import LossSettings, TrainingSettings
from buttress.views.presets import preset
from buttress.views.render import Renderer


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


def probabilities_of(module, preprocessing, views_BHWC):
    """What a network says of views in the mode that it is in."""
    with torch.no_grad():
        images_BCHW = normalise(torch.from_numpy(views_BHWC).permute(0, 3, 1, 2), preprocessing)
        return module(images_BCHW).softmax(1).numpy()


def test_the_refinery_is_asked_in_evaluation_mode_and_stays_as_it_is(photos, tmp_path):
    """What is stored is what the finished run says in evaluation mode; asking does not move its batch statistics."""
    labelling = LabelSettings(views=2, k=2, workers=0, batch=48)  # one batch, as it is asked here in training mode
    rounds = refinery(photos, tmp_path / "out", rounds=2, labelling=labelling).run()
    first = next(rounds)
    weights = (first.path / "model.safetensors").read_bytes()
    next(rounds)
    assert (first.path / "model.safetensors").read_bytes() == weights

    source, store = open_source(f"folder:{photos}"), open_reinforcement(tmp_path / "out" / "round-1+")
    renderer = Renderer(store.card.policy, store.card.seed)
    views = np.concatenate([renderer.views(source[i].data, id_hash(source.ids[i]), [0, 1], 32) for i in range(24)])
    values, ids, _ = store.targets(np.arange(24).repeat(2), np.tile([0, 1], 24))
    loaded = resolve_model(f"run:{first.path}")
    evaluating, training = (
        np.take_along_axis(probabilities_of(module, loaded.preprocessing, views), ids.astype(np.int64), 1)
        for module in (loaded.module.eval(), copy.deepcopy(loaded.module).train())
    )
    np.testing.assert_allclose(values, evaluating, atol=0.03)
    assert np.abs(values - training).max() > 0.1

    buffers = {name: value.clone() for name, value in loaded.module.named_buffers()}
    loaded.module.train()
    NetworkTeacher(TeacherSpec(uri=f"run:{first.path}", source_classes=source.classes), loaded).probabilities(views)
    assert buffers and all(torch.equal(buffers[name], value) for name, value in loaded.module.named_buffers())


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

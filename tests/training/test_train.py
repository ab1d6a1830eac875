"""From a source to a run folder: what is refused leaves no folder, and a resume may move."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from buttress.errors import ModelError, SettingsError, TrainingError
from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.loading.loader import BatchLoader
from buttress.runs.run import open_run
from buttress.sources import Subset, open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.training import train as module
from buttress.training.data import TrainingData
from buttress.training.settings import EngineSettings, OptimizerSettings, TrainingSettings
from buttress.training.train import train_on_source
from buttress.views.presets import preset

MODEL = "timm:test_vit"


def settings(**changed):
    return TrainingSettings(**{"epochs": 1, "batch": 8, "workers": 0, **changed})


def hard(photos, **changed):
    return TrainingData(**{"source": open_source(f"folder:{photos}"), "policy": preset("small"), **changed})


def train(data, out, asked=None, **options):
    return train_on_source(data, model=MODEL, out=out, settings=asked or settings(), size=32, **options)


def refused(kind, match, data, out, asked):
    with pytest.raises(kind, match=match):
        train(data, out, asked)
    assert not out.exists()


def test_a_wrong_optimizer_leaves_the_folder_free(photos, tmp_path):
    asked = settings(optimizer=OptimizerSettings(name="sgd", momentum=0.0))
    refused(SettingsError, "Nesterov", hard(photos), tmp_path / "run", asked)
    train(hard(photos), tmp_path / "run")


def test_smoothing_with_a_reinforcement_is_refused_before_anything_else(photos, colour_teacher, tmp_path):
    source = open_source(f"folder:{photos}")
    spec = TeacherSpec(uri=colour_teacher, source_classes=source.classes)
    label_source(source, spec, preset("small"), LabelSettings(views=2, k=2, workers=0), tmp_path / "plus")
    data = TrainingData(source=source, reinforcement=open_reinforcement(tmp_path / "plus"))
    refused(SettingsError, "only hard labels are smoothed", data, tmp_path / "run", settings(label_smoothing=0.1))


def test_val_data_of_other_classes_leaves_the_folder_free(photos, tmp_path):
    other = tmp_path / "val" / "purple"
    other.mkdir(parents=True)
    (other / "a.png").write_bytes((photos / "red" / "02.png").read_bytes())
    data = hard(photos, val=open_source(f"folder:{other.parent}"))
    refused(
        ModelError, "the model: no one class of its own for the images' 'purple'", data, tmp_path / "run", settings()
    )


def test_no_batch_at_all_leaves_the_folder_free(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(BatchLoader, "steps_per_epoch", 0)
    refused(TrainingError, "no full batch of 8 images", hard(photos), tmp_path / "run", settings())


def test_a_resume_may_have_other_workers_and_the_data_elsewhere(photos, tmp_path):
    train(hard(photos), tmp_path / "run")
    weights = tmp_path / "run" / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    moved = photos.rename(tmp_path / "moved")
    run = train(hard(moved), tmp_path / "run", settings(workers=1), resume=True)
    assert run.finished
    assert weights.read_bytes() == before


def test_a_resume_stays_with_what_was_measured(photos, tmp_path, monkeypatch):
    way = {"precision": "bf16", "engine": EngineSettings(channels_last=False)}
    monkeypatch.setattr(module, "fastest_step", lambda loaded, asked: replace(asked, **way))
    run = train(hard(photos), tmp_path / "run", settings(precision="fastest"))
    assert (run.settings["precision"], run.settings["engine"]["channels_last"]) == ("bf16", False)
    (tmp_path / "run" / "model.safetensors").unlink()
    monkeypatch.delattr(module, "fastest_step")
    assert train(hard(photos), tmp_path / "run", settings(precision="fastest"), resume=True).finished


def test_a_resume_names_what_differs_and_prints_no_policy(photos, tmp_path):
    train(hard(photos), tmp_path / "run")
    data = hard(photos, policy=preset("randaug"))
    with pytest.raises(TrainingError) as told:
        train(data, tmp_path / "run", settings(seed=3), resume=True)
    assert "other settings: data.policy.ops, seed (0 there, 3 asked for); " in str(told.value)


def test_other_images_do_not_resume(photos, tmp_path):
    train(hard(photos), tmp_path / "run")
    part = Subset(open_source(f"folder:{photos}"), range(20))
    with pytest.raises(TrainingError, match=r"data\.count \(24 there, 20 asked for\), data\.fingerprint"):
        train(hard(photos, source=part), tmp_path / "run", resume=True)


@pytest.mark.parametrize("asked", ["auto", "fp32"])
def test_the_run_says_which_precision_it_was(photos, tmp_path, asked):
    run = train(hard(photos), tmp_path / "run", settings(precision=asked))
    assert open_run(run.path).settings["precision"] in (("fp32", "bf16") if asked == "auto" else (asked,))
    (state,) = (run.path / "checkpoints").glob("*/state.json")
    assert json.loads(state.read_text())["settings"]["precision"] == run.settings["precision"]


def test_the_share_of_bad_images_holds_for_the_val_data_too(photos, tmp_path):
    (photos / "red" / "02.png").write_bytes(b"broken")
    (tmp_path / "good" / "red").mkdir(parents=True)
    source = open_source(f"folder:{photos}")
    good = Subset(source, [i for i, name in enumerate(source.ids) if name != "red/02.png"])
    run = train(hard(photos, source=good, val=source, max_bad=0.05), tmp_path / "run")
    assert run.read_metrics()[-1]["val"]["top1"]["count"] == 23


def card_and_recipe(run):
    return [(run / name).read_bytes() for name in ("run.json", "recipe.yaml", "metrics.jsonl")]


def test_a_finished_run_stays_as_it_is_whatever_settings_it_is_to_go_on_with(photos, tmp_path, capsys):
    train(hard(photos), tmp_path / "run", recipe={"epochs": 1})
    before = card_and_recipe(tmp_path / "run")
    train(hard(photos), tmp_path / "run", settings(epochs=9), resume=True, other_settings=True, recipe={"epochs": 9})
    assert "this run is finished already" in capsys.readouterr().err
    assert card_and_recipe(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("model", "asked", "match"),
    [
        ("timm:test_resnet", settings(epochs=2), "a checkpoint of another model"),
        (
            MODEL,
            settings(epochs=2, optimizer=OptimizerSettings(name="sgd")),
            "has the state of adamw, which sgd cannot",
        ),
    ],
)
def test_refused_other_settings_leave_the_run_as_it_was(photos, tmp_path, model, asked, match):
    train(hard(photos), tmp_path / "run", recipe={"epochs": 1})
    (tmp_path / "run" / "model.safetensors").unlink()
    before = card_and_recipe(tmp_path / "run")
    with pytest.raises(TrainingError, match=match):
        train_on_source(
            hard(photos), model=model, out=tmp_path / "run", settings=asked, size=32, resume=True, other_settings=True
        )
    assert card_and_recipe(tmp_path / "run") == before
    assert train(hard(photos), tmp_path / "run", resume=True).finished


def test_other_settings_of_the_optimizer_count(photos, tmp_path):
    for name in ("one", "other"):
        train(hard(photos), tmp_path / name)
        (tmp_path / name / "model.safetensors").unlink()
    decays = {"one": 0.05, "other": 0.9}
    for name, decay in decays.items():
        asked = settings(epochs=2, optimizer=OptimizerSettings(weight_decay=decay))
        train(hard(photos), tmp_path / name, asked, resume=True, other_settings=True)
    one, other = (open_run(tmp_path / name).load_model().module.state_dict() for name in decays)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_an_optimizer_whose_state_cannot_be_saved_is_refused_before_the_work(photos, tmp_path, monkeypatch):
    # Where there is a compiler, Kron has its arithmetic compiled for every shape of a weight, which takes minutes.
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    asked = settings(optimizer=OptimizerSettings(name="kron"))
    refused(TrainingError, "Kron keeps a list", hard(photos), tmp_path / "run", asked)

"""Checkpoints are whole or do not count; they hold everything; they refuse what is not theirs."""

import os
import shutil

import pytest
import torch
from torch import nn

from buttress.errors import TrainingError
from buttress.training.checkpoints import (
    Place,
    TrainingState,
    differing_keys,
    load_checkpoint,
    newest_checkpoint,
    require_same_settings,
    save_checkpoint,
)
from buttress.training.optim import create_optimizer, plain_groups
from buttress.training.settings import OptimizerSettings

from .tiny import network, update

SETTINGS = {"lr": 0.1, "workers": 2, "optimizer": {"name": "adamw"}}


def trained(name="adamw", steps=2):
    model = network().to(memory_format=torch.channels_last)
    optimizer = create_optimizer(plain_groups(model, 0.05), OptimizerSettings(name=name), 0.1)
    for step in range(steps):
        update(model, optimizer, step)
    return model, optimizer


def found(folder):
    newest = newest_checkpoint(folder)
    assert newest is not None
    return newest


def save(folder, updates=1, model=None, optimizer=None):
    if model is None:
        model, optimizer = trained()
    place = Place(epoch=updates, step=0, losses=[], history=[{"epoch": updates}])
    return save_checkpoint(
        folder, TrainingState(model=model, optimizer=optimizer), place, updates=updates, settings=SETTINGS
    )


def load(path, model, optimizer):
    return load_checkpoint(path, found(path.parent)[1], TrainingState(model=model, optimizer=optimizer))


@pytest.mark.parametrize("name", ["adamw", "sgd", "nadamw", "rmsproptf", "lion", "adabelief", "lamb"])
def test_everything_comes_back(tmp_path, name):
    model, optimizer = trained(name)
    path = save(tmp_path, 2, model, optimizer)
    for step in range(2, 4):
        torch.manual_seed(step)
        update(model, optimizer, step)

    other, resumed = trained(name, steps=0)
    place = load(path, other, resumed)
    assert place == Place(epoch=2, step=0, losses=[], history=[{"epoch": 2}])
    for step in range(2, 4):
        torch.manual_seed(step)
        update(other, resumed, step)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_moments_have_the_memory_format_of_their_parameters(tmp_path):
    model, optimizer = trained()
    path = save(tmp_path, 1, model, optimizer)
    other, resumed = trained(steps=0)
    load(path, other, resumed)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert resumed.state[other[0].weight]["exp_avg"].stride() == other[0].weight.stride()


def test_tied_tensors_are_saved_once_and_stay_tied(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    model, optimizer = tied()
    path = save(tmp_path, 1, model, optimizer)
    other, resumed = tied()
    load(path, other, resumed)
    assert other[1].weight is other[0].weight
    assert torch.equal(other[1].weight, model[0].weight)
    assert (path / "model.safetensors").stat().st_size < 4 * (9 + 3 + 3) + 400


def test_damage_anywhere_makes_it_not_count(tmp_path):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    for file in sorted(newest.iterdir()):
        whole = file.read_bytes()
        places = range(0, len(whole), max(len(whole) // 25, 1))
        damaged = [whole[:p] + bytes([whole[p] ^ 4]) + whole[p + 1 :] for p in places]
        for data in [*damaged, whole[:-1], whole + b"x", b""]:
            file.write_bytes(data)
            assert found(tmp_path)[0].name == "step-00000001", (file.name, len(data))
        file.unlink()
        assert found(tmp_path)[0].name == "step-00000001"
        file.write_bytes(whole)
    assert found(tmp_path)[0] == newest


def test_there_may_be_none(tmp_path):
    assert newest_checkpoint(tmp_path / "absent") is None
    (tmp_path / "step-00000003").mkdir()
    (tmp_path / "epoch-junk").mkdir()
    assert newest_checkpoint(tmp_path) is None


def test_the_newest_two_are_kept_and_leftovers_removed(tmp_path):
    for epoch in range(1, 5):
        save(tmp_path, epoch)
    (tmp_path / ".step-00000005.123.tmp").mkdir()
    save(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000010"]


def test_a_damaged_newer_one_is_replaced(tmp_path):
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    (tmp_path / "step-00000003" / "state.json").write_text("{")
    assert found(tmp_path)[0].name == "step-00000002"
    save(tmp_path, 3)
    assert found(tmp_path)[0].name == "step-00000003"
    shutil.rmtree(tmp_path / "step-00000003")
    assert found(tmp_path)[0].name == "step-00000002"


def test_a_failure_while_saving_leaves_the_older_one(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def fail(path, value):
        raise OSError("disk full")

    monkeypatch.setattr("buttress.training.checkpoints.write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 2)
    assert found(tmp_path)[0].name == "step-00000001"


def test_a_newer_format_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("buttress.training.checkpoints.VERSION", 3)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="checkpoint format 3, this Buttress reads 2"):
        newest_checkpoint(tmp_path)


def test_another_model_is_refused(tmp_path):
    path = save(tmp_path, 1)
    other = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match=r"a checkpoint of another model \(differs in 0\.weight\)"):
        load(path, other, optimizer)


def test_an_optimizer_whose_state_cannot_be_held_is_refused(tmp_path):
    model, optimizer = trained()
    optimizer.state[model[0].weight]["history"] = [torch.zeros(3)]
    with pytest.raises(TrainingError, match=r"AdamW keeps a list \(state\.\d\.history\)"):
        save(tmp_path, 1, model, optimizer)


def test_other_settings_are_refused_with_their_keys_and_values(tmp_path):
    current = {"lr": 0.2, "workers": 0, "optimizer": {"name": "sgd"}}
    assert differing_keys(SETTINGS, current) == ["lr", "optimizer.name"]
    told = r"lr \(0\.1 there, 0\.2 asked for\), optimizer\.name \(adamw there, sgd asked for\)"
    with pytest.raises(TrainingError, match=told):
        require_same_settings(tmp_path, SETTINGS, current)
    require_same_settings(tmp_path, SETTINGS, {**SETTINGS, "workers": 7})


def test_only_short_values_are_shown(tmp_path):
    stored = {"policy": {"ops": [{"op": "Flip"}]}, "model": "timm:" + "x" * 60, "data": {"uri": "folder:a"}}
    current = {"policy": None, "model": "timm:y", "data": {"uri": "folder:b"}}
    with pytest.raises(TrainingError, match="other settings: model, policy; resume"):
        require_same_settings(tmp_path, stored, current)


def test_a_key_that_only_one_has_differs():
    assert differing_keys({"a": 1}, {"a": 1, "b": {"c": 2}}) == ["b"]


def test_nothing_is_pickled(tmp_path):
    path = save(tmp_path, 1)
    assert sorted(f.name for f in path.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]


def test_one_of_the_same_step_is_replaced_only_by_a_whole_one(tmp_path, monkeypatch):
    """A training that was to end before its epoch was scored saves the same step again when it goes on."""
    model, optimizer = trained()
    save(tmp_path, 3, model, optimizer)
    rename = os.rename

    def dies(source, target):
        if str(source).endswith(".tmp"):
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 3, model, optimizer)
    path, state = found(tmp_path)
    load_checkpoint(path, state, TrainingState(model=model, optimizer=optimizer))
    save(tmp_path, 3, model, optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]

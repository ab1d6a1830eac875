"""How a step is computed: torch.compile where there is one, memory that does not suffice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from buttress.cli import settings
from buttress.commands.train import train
from buttress.errors import TrainingError
from buttress.models.load import at_size, load_model
from buttress.training import compute
from buttress.training.compute import compiled
from buttress.training.settings import EngineSettings, TrainingSettings
from buttress.training.stops import memory_advice


def test_a_model_is_compiled_where_a_compiler_works(monkeypatch):
    asked: list[object] = []

    def compile_(function):
        asked.append(function)
        return lambda x: function(x)

    monkeypatch.setattr(torch, "compile", compile_)
    model = nn.Linear(3, 2)
    faster = compiled(model, methods=False)
    assert asked[-1] is model and faster is not model
    images = torch.rand(4, 3)
    assert torch.equal(faster(images), model(images))


@pytest.mark.parametrize("when", ["asked", "run"])
def test_without_a_compiler_it_is_told_and_not_used(monkeypatch, capsys, when):
    def fails(*_):
        raise RuntimeError("Could not find a C++ compiler\nset CXX")

    monkeypatch.setattr(torch, "compile", fails if when == "asked" else lambda _: fails)
    model = nn.Linear(3, 2)
    assert compiled(model, methods=False) is model
    assert capsys.readouterr().err == "torch.compile: not used (Could not find a C++ compiler)\n"


def test_a_model_with_methods_is_not_compiled(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda *_: pytest.fail("compiled"))
    model = nn.Linear(3, 2)
    assert compiled(model, methods=True) is model
    assert "not used, a method" in capsys.readouterr().err


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_says_a_flag_that_there_is(failure):
    with pytest.raises(TrainingError, match=r"^step 7: out of memory with 64 images") as told, memory_advice(7, 64):
        raise failure
    words = str(told.value).split("set ")[1].split(" ")[:2]
    assert words == ["--engine.micro_batch", "32"]
    given = settings(train, ["--model=timm:test_vit", "--data=digits", "--out=x", *words])
    assert given is not None and given["engine"].micro_batch == 32


def test_other_failures_pass():
    with pytest.raises(RuntimeError, match="shapes"), memory_advice(7, 64):
        raise RuntimeError("shapes differ")


@pytest.fixture
def loaded():
    return at_size(load_model("timm:test_resnet", num_classes=3), 32)


def test_the_fastest_step_is_taken_and_told(monkeypatch, capsys, loaded):
    told = {("fp32", True): 0.004, ("fp32", False): 0.003, ("bf16", True): 0.002, ("bf16", False): 0.005}
    monkeypatch.setattr(compute, "_step_seconds", lambda loaded, batch, *way: told[way])
    monkeypatch.setattr(compute, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = TrainingSettings(precision="fastest", engine=EngineSettings(channels_last=False))
    chosen = compute.fastest_step(loaded, asked)
    assert (chosen.precision, chosen.engine.channels_last) == ("bf16", True)
    said = (
        "bf16 channels_last is fastest (ms an image: bf16 channels_last 2.00, fp32 contiguous 3.00, fp32 channels_last"
    )
    assert said in capsys.readouterr().err
    monkeypatch.setattr(compute, "cpu_has_bf16", lambda: False)
    chosen = compute.fastest_step(loaded, asked)
    assert (chosen.precision, chosen.engine.channels_last) == ("fp32", False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert compute.fastest_step(loaded, asked) == asked
    assert "measured for one process on a CPU alone; here it is as auto" in capsys.readouterr().err


def test_measuring_changes_neither_the_model_nor_chance(loaded):
    before = {name: value.clone() for name, value in loaded.module.state_dict().items()}
    state, drawn = torch.get_rng_state(), torch.rand(1)
    torch.set_rng_state(state)
    assert compute._step_seconds(loaded, 4, "fp32", True) > 0
    assert torch.equal(torch.rand(1), drawn)
    assert all(torch.equal(value, before[name]) for name, value in loaded.module.state_dict().items())
    assert all(parameter.grad is None for parameter in loaded.module.parameters())

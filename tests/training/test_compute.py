"""How a step is computed: torch.compile where there is one, memory that does not suffice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from buttress.cli import settings
from buttress.commands.train import train
from buttress.errors import TrainingError
from buttress.training.compute import compiled
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

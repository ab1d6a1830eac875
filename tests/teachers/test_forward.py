"""How a teacher answers is measured once, before a long labelling, and then stays."""

from typing import Any

import pytest
import torch

from buttress.errors import ModelError, SettingsError
from buttress.models import processor
from buttress.teachers import EnsembleSpec, TeacherSpec, forward
from buttress.teachers.forward import WORTH_COMPILING, WORTH_MEASURING, recorded_forward, settled

MANY = WORTH_MEASURING


@pytest.fixture
def clock(monkeypatch):
    """Seconds a view of each way; what is not in it cannot be run. The ways that were measured are kept under ""."""
    told: dict[Any, Any] = {"": []}

    def seconds(member, loaded, way):
        told[""].append(way)
        if way not in told:
            raise ModelError("no compiler here; install one")
        return told[way]

    monkeypatch.setattr(forward, "_seconds", seconds)
    monkeypatch.setattr(TeacherSpec, "load", lambda self: None)
    monkeypatch.setattr(processor, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told |= {(precision, way): 0.01 for precision in ("fp32", "bf16") for way in ("channels_last", "contiguous")}
    return told


def chosen(views=MANY, recorded=None, workers=1, **asked):
    (member,) = settled(EnsembleSpec.of(TeacherSpec(uri="timm:test_vit", **asked)), views, workers, recorded).members
    return member.precision, member.forward


def test_the_fastest_way_is_taken_and_told(clock, capsys):
    clock["bf16", "contiguous"] = 0.004
    assert chosen() == ("bf16", "contiguous")
    said = capsys.readouterr().err
    assert "timm:test_vit: bf16 contiguous is fastest (ms a view: bf16 contiguous 4.0, " in said
    assert "--precision and --forward choose otherwise" in said


def test_what_was_asked_for_is_not_measured(clock):
    assert chosen(forward="channels_last") == ("auto", "channels_last")
    assert chosen(views=MANY - 1) == ("auto", "auto")
    assert clock[""] == []
    clock["fp32", "channels_last"] = 0.005
    clock["bf16", "contiguous"] = 0.001
    assert chosen(precision="fp32") == ("fp32", "channels_last")
    assert {precision for precision, _ in clock[""]} == {"fp32"}


def test_a_function_and_a_gpu_are_left_alone(clock, monkeypatch):
    spec = EnsembleSpec.of(TeacherSpec(uri="python:somewhere:look"))
    assert settled(spec, MANY, 0) == spec
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen() == ("auto", "auto")
    assert clock[""] == []


def test_a_compiler_is_started_where_it_can_pay(clock, capsys):
    clock["bf16", "channels_last"] = 0.009
    clock["bf16", "channels_last+compiled"] = 0.002
    few, many = int(WORTH_COMPILING / 0.009) - 1, int(WORTH_COMPILING / 0.009) + 2
    assert chosen(few) == ("bf16", "channels_last")
    assert chosen(many) == ("bf16", "channels_last+compiled")
    assert chosen(many, workers=2) == ("bf16", "channels_last")  # each would compile for half of the work
    clock["bf16", "channels_last+compiled"] = 0.010
    assert chosen(many) == ("bf16", "channels_last")
    del clock["bf16", "channels_last+compiled"]
    capsys.readouterr()
    assert chosen(many) == ("bf16", "channels_last")
    assert "not compiled: no compiler here; install one" in capsys.readouterr().err


def test_a_labelling_that_goes_on_answers_as_it_began(clock):
    said = {"precision": "fp32", "channels_last": False, "compiled": True}
    assert chosen(recorded=[said]) == ("fp32", "contiguous+compiled")
    assert chosen(recorded=[said], precision="bf16", forward="channels_last") == ("bf16", "channels_last")
    for other in ([], [said, said]):  # of an older form; of two teachers, which will be refused
        assert chosen(recorded=other) == ("auto", "auto")
    assert clock[""] == []


def test_a_card_says_how_its_teacher_answered():
    assert recorded_forward({"channels_last": True}) == "channels_last"
    assert recorded_forward({"channels_last": False, "compiled": True}) == "contiguous+compiled"
    assert recorded_forward({"channels_last": False}) == "contiguous"
    assert recorded_forward({}) == "auto"


def test_an_unknown_way_is_refused():
    with pytest.raises(SettingsError, match="forward 'fast': must be one of auto, channels_last, contiguous"):
        TeacherSpec(uri="timm:test_vit", forward="fast")  # type: ignore[arg-type]

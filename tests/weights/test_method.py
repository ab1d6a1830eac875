"""The protocol is importable, complete, and a plain class fits it."""

import inspect

from buttress.weights.method import Method


def test_the_protocol_is_the_six_calls_of_the_trainer():
    calls = [name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert calls == ["prepare", "before_step", "passes", "auxiliary_loss", "before_evaluation", "materialise"]
    assert all(inspect.getdoc(getattr(Method, name)) for name in calls)

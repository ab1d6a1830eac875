"""Suggestions for misspelt names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.nearest import did_you_mean, nearest

KNOWN = ["--views", "--teacher-size", "--k", "--seed"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("--veiws", "; did you mean --views?"),
        ("--teacher_sise", "; did you mean --teacher-size?"),
        ("--j", "; did you mean --k?"),
        ("--sede", "; did you mean --seed?"),
        ("--xylophone", ""),
    ],
)
def test_the_nearest_is_suggested_where_one_is_near(name, suggestion):
    assert did_you_mean(name, KNOWN) == suggestion


def test_equally_near_names_are_all_suggested():
    assert did_you_mean("bat", ["bar", "baz", "foo"]) == "; did you mean bar or baz?"
    assert did_you_mean("bat", []) == ""


@given(st.text("abcdefgh", min_size=4, max_size=12), st.data())
def test_one_edit_is_always_near(name, data):
    at = data.draw(st.integers(0, len(name) - 1))
    for wrong in (name[:at] + name[at + 1 :], name[:at] + "z" + name[at:], name[:at] + "z" + name[at + 1 :]):
        assert name in did_you_mean(wrong, [name, "qqqqqqqqqqqqqqqqqqqq"])


def test_a_count_gives_the_next_nearest_too():
    assert nearest("resnet17", ["resnet50", "resnet18", "vit", "resnet10t"], count=2) == ["resnet18", "resnet50"]
    assert did_you_mean("resnet17", ["resnet50", "resnet18"], count=2) == "; did you mean resnet18 or resnet50?"
    assert nearest("resnet17", ["resnet50", "resnet18"]) == ["resnet18"]

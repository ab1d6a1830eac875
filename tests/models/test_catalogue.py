"""The names of timm's models, from the table."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from buttress.errors import ModelError
from buttress.models import catalogue as room
from buttress.models.catalogue import ModelEntry, ask_timm, catalogue, find_models


def test_the_table_is_what_timm_says():
    """Where this fails, timm was updated: `python -m buttress.models.catalogue` writes the table anew."""
    assert Path(room.__file__).with_name(room.TABLE).read_text().splitlines()[0] == room._head()
    assert catalogue() == ask_timm()


def test_another_version_of_timm_is_asked_itself(monkeypatch):
    monkeypatch.setattr(room, "_head", lambda: "# timm 999")
    monkeypatch.setattr(room, "ask_timm", lambda: [ModelEntry("new", 1000, "224", "mit")])
    assert [entry.name for entry in find_models()] == ["new"]


def test_every_model_is_listed_once_with_its_tags_or_without_weights():
    entries = catalogue()
    names = [entry.name for entry in entries]
    assert len(names) == len(set(names)) > 2000
    assert ModelEntry("mobilenetv3_small_050.lamb_in1k", 1000, "224", "apache-2.0") in entries
    assert all(("." in entry.name) == (entry.licence != "-") for entry in entries)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("test_vit", ["test_vit.r160_in1k"]),
        ("test_vit.r*", ["test_vit.r160_in1k"]),
        ("test_vit?", ["test_vit2.r160_in1k", "test_vit3.r160_in1k", "test_vit4"]),
    ],
)
def test_a_glob_matches_the_name_with_or_without_the_tag(pattern, expected):
    assert [entry.name for entry in find_models(pattern)] == expected


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [("resnet19", "did you mean resnet"), ("repvit_m", r"did you mean '\*repvit_m\*'"), ("xyz*", "$")],
)
def test_no_match_names_the_nearest(pattern, hint):
    with pytest.raises(ModelError, match=f"no timm model matches '{re.escape(pattern)}'.*{hint}"):
        find_models(pattern)


def test_listing_imports_neither_timm_nor_torch():
    code = (
        "import sys; from buttress.cli import main\n"
        "assert main(['models', 'test_*']) == 0\n"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "test_vit4\t1000\t160\t-" in result.stdout.splitlines()

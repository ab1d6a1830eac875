"""A store of one teacher says today what it said yesterday: its card and the digest that joins its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from buttress.files import json_bytes
from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.sources import open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.views.presets import preset

GOLDEN = Path(__file__).parents[1] / "golden" / "card.json"


def steady(folder: Path) -> dict[str, Any]:
    """What of a card does not depend on the versions of libraries, with the settings digest of its parts."""
    card = open_reinforcement(folder).card
    said = card.to_json()
    for part in said["parts"]:
        del part["sha256"]
    for key in ("versions", "probes", "digest"):
        del said[key]
    return {"card": said, "settings_digest": card.settings_digest}


@pytest.fixture
def source(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    return open_source("folder:photos")


def test_the_card_of_one_teacher_is_as_ever(source, colour_teacher, tmp_path):
    spec = TeacherSpec(uri=colour_teacher, source_classes=source.classes)
    label_source(source, spec, preset("crop"), LabelSettings(views=2, k=2, workers=0), tmp_path / "plus")
    assert json_bytes(steady(tmp_path / "plus")) == GOLDEN.read_bytes(), "the form of the card has changed"

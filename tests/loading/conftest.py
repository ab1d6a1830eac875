"""A small reinforced folder that the loading tests share."""

from __future__ import annotations

import pytest

from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.sources import Relabelled, open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.views.presets import preset


@pytest.fixture
def source(photos):
    return open_source(f"folder:{photos}")


@pytest.fixture
def store(source, colour_teacher, tmp_path):
    """Four views of 24 images, k = 2 of 3 classes."""
    spec = TeacherSpec(uri=colour_teacher, source_classes=source.classes)
    label_source(source, spec, preset("randaug"), LabelSettings(views=4, k=2, workers=0), tmp_path / "plus")
    return open_reinforcement(tmp_path / "plus")


@pytest.fixture
def own_source(source):
    """The same images under two classes that the teacher does not know."""
    own = Relabelled(source, source.labels // 2)
    own.classes = ("cold", "warm")
    return own


@pytest.fixture
def own_store(own_source, colour_teacher, tmp_path):
    """`store` in the teacher's own classes."""
    spec = TeacherSpec(uri=colour_teacher, source_classes=own_source.classes, classes="teacher")
    label_source(own_source, spec, preset("randaug"), LabelSettings(views=4, k=2, workers=0), tmp_path / "own+")
    return open_reinforcement(tmp_path / "own+")

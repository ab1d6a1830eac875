"""A small reinforced folder, and one training of it that every trainer can do."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.trainer_arms import Setup

from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.sources import open_source
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.views.presets import preset


@pytest.fixture
def store(photos: Path, colour_teacher: str, tmp_path: Path) -> Reinforcement:
    """Four views of the 24 photos in three classes."""
    source = open_source(f"folder:{photos}")
    spec = TeacherSpec(uri=colour_teacher, source_classes=source.classes)
    label_source(source, spec, preset("randaug"), LabelSettings(views=4, k=3, workers=0), tmp_path / "photos+")
    return open_reinforcement(tmp_path / "photos+")


@pytest.fixture
def setup(photos: Path, store: Reinforcement) -> Setup:
    """Four epochs of one update each, on all photos at once: their order then changes nothing.

    Without a moment of second order, which would make a whole step of a gradient that is zero but for its rounding.
    """
    return Setup(
        source=open_source(f"folder:{photos}"),
        store=store,
        model="test_resnet",
        size=32,
        epochs=4,
        warmup_epochs=1,
        batch=24,
        lr=0.05,
        optimizer="momentum",
    )

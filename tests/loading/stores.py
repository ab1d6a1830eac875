"""Reinforcements of the 24 photos, and their batches, for the loading tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.loading.batches import ReinforcedBatches
from buttress.sources import Source
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.teachers.teacher import ClassesMode, TeacherSpec
from buttress.views.policy import Policy


def stored(
    source: Source, teacher: str, out: Path, policy: Policy, classes: ClassesMode = "source", **settings: Any
) -> Reinforcement:
    """Four views of every image, k = 2, where nothing else is said."""
    spec = TeacherSpec(uri=teacher, source_classes=source.classes, classes=classes)
    label_source(source, spec, policy, LabelSettings(**{"views": 4, "k": 2, "workers": 0, **settings}), out)
    return open_reinforcement(out)


def reinforced(source, store, **options):
    """Batches at the teacher's size, of stored views alone."""
    return ReinforcedBatches(source, store, **{"size": 24, "p": 1.0, **options})

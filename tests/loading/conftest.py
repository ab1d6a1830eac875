"""A small reinforced folder that the loading tests share."""

from __future__ import annotations

import pytest
from tests.loading.stores import stored

from buttress.sources import Relabelled, open_source
from buttress.views.presets import preset


@pytest.fixture
def source(photos):
    return open_source(f"folder:{photos}")


@pytest.fixture
def store(source, colour_teacher, tmp_path):
    """Four views of 24 images, k = 2 of 3 classes."""
    return stored(source, colour_teacher, tmp_path / "plus", preset("randaug"))


@pytest.fixture
def mixed_store(source, photos, colour_teacher, tmp_path):
    """Four views of 24 images, k = 2 of 3 classes, mixed; one image, row 4, does not decode."""
    path = photos / source.ids[4]
    kept = path.read_bytes()
    path.write_bytes(b"not an image")
    store = stored(source, colour_teacher, tmp_path / "mixed+", preset("mix+randaug"), max_bad=0.05)
    path.write_bytes(kept)
    return store


@pytest.fixture
def own_source(source):
    """The same images under two classes that the teacher does not know."""
    own = Relabelled(source, source.labels // 2)
    own.classes = ("cold", "warm")
    return own


@pytest.fixture
def own_store(own_source, colour_teacher, tmp_path):
    """`store` in the teacher's own classes."""
    return stored(own_source, colour_teacher, tmp_path / "own+", preset("randaug"), "teacher")

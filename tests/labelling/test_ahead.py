"""Views that others draw for a GPU's process: a worker that dies, and what an image that changes meanwhile gives."""

from __future__ import annotations

import os
from functools import partial

import pytest
from tests.labelling.small_labelling import labelled

from buttress.errors import LabellingError, SourceError
from buttress.labelling import ahead, label
from buttress.labelling.row_images import RowImages
from buttress.views.presets import preset


@pytest.fixture
def run(uris, source, tmp_path, monkeypatch):
    monkeypatch.setattr(label, "on_gpu", lambda teacher: True)
    return partial(labelled, source, teacher=uris[0], out=tmp_path / "ahead", workers=1, policy=preset("crop"))


def test_a_worker_that_dies_is_told_in_one_line(run, monkeypatch):
    monkeypatch.setattr(ahead, "drawn_rows", lambda *_: os._exit(9))
    with pytest.raises(LabellingError, match="a process that draws views died"):
        run()


def test_the_users_mistakes_come_back_as_they_are(run, monkeypatch):
    def refuse(*_):
        raise SourceError("photos: has changed")

    monkeypatch.setattr(RowImages, "load", refuse)
    with pytest.raises(SourceError, match=r"^photos: has changed$"):
        run()

"""What the tests of every kind of source ask of one: all its samples, or the line that refuses it."""

from __future__ import annotations

import pytest

from buttress.errors import SourceError
from buttress.sources import Sample, Source, open_source


def samples(source: Source) -> list[Sample]:
    return [source[index] for index in range(len(source))]


def refusal(uri: str) -> str:
    """Why a source is not opened, in one line."""
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    assert "\n" not in str(caught.value)
    return str(caught.value)

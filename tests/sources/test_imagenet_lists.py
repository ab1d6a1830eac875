"""The lists that timm ships are those of the field, and reading them imports nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from buttress.errors import SourceError
from buttress.models.imagenet import imagenet_classes
from buttress.sources.imagenet_lists import timm_list, wordnet_ids


def test_the_thousand_are_those_of_every_published_head() -> None:
    assert wordnet_ids("imagenet") == imagenet_classes()


@pytest.mark.parametrize("of", ["imagenet_a", "imagenet_r"])
def test_the_two_hundred_are_some_of_them_in_their_order(of: str) -> None:
    numbers = [int(line) for line in timm_list(f"{of}_indices.txt").read_text().split()]
    assert len(set(numbers)) == 200
    assert wordnet_ids(of) == tuple(imagenet_classes()[number] for number in numbers)


def test_a_timm_without_the_list_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"no list imagenet_z_synsets\.txt; install a timm that has it"):
        wordnet_ids("imagenet_z")
    monkeypatch.setattr("buttress.sources.imagenet_lists.find_spec", lambda _: None)
    with pytest.raises(SourceError, match="pip install -U timm"):
        timm_list("imagenet_a_synsets.txt")


def test_reading_them_imports_neither_timm_nor_torch() -> None:
    code = (
        "import sys; from buttress.sources.imagenet_lists import wordnet_ids; wordnet_ids('imagenet_a');"
        "print([name for name in ('timm', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

"""The 1,000 classes of ImageNet-1k (ILSVRC2012): WordNet ids and English names, in the order every published head uses.

The table `imagenet1k.txt` was made from timm's own lists (`timm.data.ImageNetInfo("imagenet1k")`, Apache-2.0).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files


@cache
def _table() -> dict[str, tuple[str, ...]]:
    text = (files("buttress.models") / "imagenet1k.txt").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return {wnid: tuple(names.split(", ")) for wnid, names in rows}


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 WordNet ids (`n01440764`, ...) in the order of an ImageNet-1k head's outputs."""
    return tuple(_table())


def is_wordnet_id(name: str) -> bool:
    """Whether `name` is the WordNet id of an ImageNet-1k class."""
    return name in _table()


def english_names(wordnet_id: str) -> tuple[str, ...]:
    """The English synonyms of an ImageNet-1k class, the usual one first (`("tench", "Tinca tinca")`).

    Raises: KeyError where the id is not one of the 1,000.
    """
    return _table()[wordnet_id]


def normalised(name: str) -> str:
    """`name` in small letters with every run of spaces, underscores and punctuation as one space."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()

"""The lists about ImageNet that timm ships (Apache-2.0): read as files, for timm itself would import torch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from buttress.errors import SourceError


@cache
def wordnet_ids(of: str) -> tuple[str, ...]:
    """The WordNet ids of a set of classes, in the order of its own numbers.

    Args:
        of: `imagenet` (the 1,000 of ImageNet-1k), `imagenet_a` or `imagenet_r` (200 of them each).

    Raises: `SourceError` where timm has no such list.
    """
    return tuple(timm_list(f"{of}_synsets.txt").read_text(encoding="ascii").split())


def timm_list(name: str) -> Path:
    """Where a file of timm's `timm/data/_info` lies.

    Raises: `SourceError` where timm is not installed, or its version has no such file.
    """
    timm = find_spec("timm")  # finds the package and runs nothing of it
    for folder in (timm and timm.submodule_search_locations) or ():
        path = Path(folder) / "data" / "_info" / name
        if path.is_file():
            return path
    raise SourceError(f"timm has no list {name}; install a timm that has it: pip install -U timm")

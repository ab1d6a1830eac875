"""What the paths of images say: their ids, and the classes that their top folders are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.source import NO_LABEL, nfc

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


def sorted_ids(paths: list[str], place: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Ids in order, and the path on disk of those whose name there is not NFC (file systems of Apple store NFD)."""
    raw_paths: dict[str, str] = {}
    ids = []
    for path in paths:
        sample_id = path
        if not path.isascii():
            sample_id = nfc(_utf8(path, place))
            if sample_id != path:
                raw_paths[sample_id] = path
        ids.append(sample_id)
    ids.sort()  # code points order as their UTF-8 bytes do
    repeat = next((left for left, right in pairwise(ids) if left == right), None)
    if repeat is not None:
        raise SourceError(f"{place}: two files are named {repeat!r} once their Unicode is normalised; rename one")
    return tuple(ids), raw_paths


def _utf8(path: str, place: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as failure:
        name = os.fsencode(path)
        raise SourceError(
            f"{place}: the file name {name!r} is not UTF-8, so it has no stable id; rename it"
        ) from failure
    return path


def class_folders(
    ids: Sequence[str], top_folders: Iterable[str], place: str, *, labels: bool
) -> tuple[tuple[str, ...] | None, NDArray[np.int32]]:
    """Class names and the label of every id `[N]` where all ids lie in sub-folders; none and -1 where they lie loose.

    Args:
        ids: POSIX paths.
        top_folders: all folders at the top, also those without an image.
        place: what an error names.
        labels: false takes loose and nested ids alike, without labels.

    Raises: `SourceError` where some ids lie loose and some do not, or where class names are hard to tell apart.
    """
    if not labels or not _in_folders(ids, place):
        return None, np.full(len(ids), NO_LABEL, np.int32)
    classes = _class_names(top_folders, ids, place)
    index = {name: label for label, name in enumerate(classes)}
    return classes, np.array([index[sample_id.partition("/")[0]] for sample_id in ids], np.int32)


def _in_folders(ids: Sequence[str], place: str) -> bool:
    """True where all images lie in sub-folders, False where none does; between the two is an error."""
    loose = [sample_id for sample_id in ids if "/" not in sample_id]
    if loose and len(loose) != len(ids):
        raise SourceError(
            f"{place}: found {len(loose)} loose images (e.g. {loose[0]!r}) beside {len(ids) - len(loose)} in class"
            " folders; move them into a class folder, or use the folder without labels"
        )
    return not loose


def _class_names(top_folders: Iterable[str], ids: Sequence[str], place: str) -> tuple[str, ...]:
    """The class folders' names, sorted. Refuses folders without an image and names that are hard to tell apart."""
    names = sorted(nfc(name) for name in top_folders)
    by_folded: dict[str, str] = {}
    for name in names:
        folded = nfc(name.casefold())
        if folded in by_folded:
            raise SourceError(f"{place}: two classes of one name, {by_folded[folded]!r} and {name!r}; rename one")
        by_folded[folded] = name
    used = {sample_id.partition("/")[0] for sample_id in ids}
    if empty := [name for name in names if name not in used]:
        listed = ", ".join(repr(name) for name in empty[:3]) + (", ..." if len(empty) > 3 else "")
        raise SourceError(f"{place}: {len(empty)} class folders hold no image ({listed}); fill or remove them")
    return tuple(names)

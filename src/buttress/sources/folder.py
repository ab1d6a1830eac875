"""`folder:DIR`: image files in a folder; where they lie in sub-folders, those are the classes."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.source import NO_LABEL, Sample, UndecodableImage, label_or_none, nfc

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# the file is gone or closed to us: one bad image. Other failures (I/O, too many open files) concern the whole run.
_BAD_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENOTDIR)


class FolderSource:
    """The images of a folder, sorted by id; the id is the POSIX path inside the folder (NFC), class folder included.

    Labelled where every image lies below a class sub-folder (nested deeper is fine); unlabelled where all images lie
    loose, or with `labels=False`, which takes loose and nested ones alike. Hidden and other files are no samples.

    Raises: `SourceError` for a folder that is absent, unreadable, empty or ambiguous.
    """

    def __init__(self, folder: str | Path, *, labels: bool = True) -> None:
        self.uri = f"folder:{folder}"
        self.root = os.path.abspath(os.path.expanduser(folder))
        found = _walk(self.root)
        if not found.paths:
            raise SourceError(f"{folder}: found 0 images, {found.others_text()}; images end in {' '.join(EXTENSIONS)}")
        self.ids, self._raw_paths = _sorted_ids(found.paths, str(folder))
        self.classes: tuple[str, ...] | None = None
        self.labels = np.full(len(self.ids), NO_LABEL, np.int32)
        if labels and _in_class_folders(self.ids, str(folder)):
            self.classes = _class_names(found.top_folders, self.ids, str(folder))
            self.labels = _labels(self.ids, self.classes)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[index]
        path = os.path.join(self.root, self._raw_paths.get(sample_id, sample_id))
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.readall()
        except OSError as failure:
            kind = UndecodableImage if failure.errno in _BAD_FILE else SourceError
            raise kind(f"{self.uri}: {sample_id!r} cannot be read ({failure.strerror})") from failure
        return Sample(sample_id, data, label_or_none(self.labels[index]))


@dataclass
class _Found:
    """What a walk saw: image paths relative to the root, first-level folders, and what else there was."""

    paths: list[str] = field(default_factory=list)
    top_folders: list[str] = field(default_factory=list)
    others: int = 0
    example: str = ""

    def others_text(self) -> str:
        return f"{self.others} other files, e.g. {self.example!r}" if self.others else "and no other files"


def _walk(root: str) -> _Found:
    """All files below `root`, following links to folders. d_type makes it one `stat` per folder, none per file."""
    found = _Found()
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        prefix, above = pending.pop()
        folder = os.path.join(root, prefix)
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                names = [(entry.name, entry.is_dir(), entry.is_file() or entry.is_symlink()) for entry in entries]
        except OSError as failure:
            reason = failure.strerror if prefix or failure.errno != errno.ENOENT else "no such folder"
            raise SourceError(f"{folder}: cannot be read as a folder of images ({reason})") from failure
        if (status.st_dev, status.st_ino) in above:
            raise SourceError(f"{folder}: a link leads back to a folder above it; remove the link")
        within = above | {(status.st_dev, status.st_ino)}
        for name, is_folder, is_file in names:
            if name.startswith("."):
                continue
            if is_folder:
                pending.append((f"{prefix}{name}/", within))
                if not prefix:
                    found.top_folders.append(name)
            elif is_file and name.lower().endswith(EXTENSIONS):
                found.paths.append(prefix + name)
            else:
                found.others += 1
                found.example = found.example or name
    return found


def _sorted_ids(paths: list[str], place: str) -> tuple[tuple[str, ...], dict[str, str]]:
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


def _in_class_folders(ids: Sequence[str], place: str) -> bool:
    """True where all images lie in sub-folders, False where none does; between the two is an error."""
    loose = [sample_id for sample_id in ids if "/" not in sample_id]
    if loose and len(loose) != len(ids):
        raise SourceError(
            f"{place}: found {len(loose)} loose images (e.g. {loose[0]!r}) beside {len(ids) - len(loose)} in class"
            " folders; move them into a class folder, or use the folder without labels"
        )
    return not loose


def _class_names(top_folders: list[str], ids: Sequence[str], place: str) -> tuple[str, ...]:
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


def _labels(ids: Sequence[str], classes: tuple[str, ...]) -> NDArray[np.int32]:
    index = {name: label for label, name in enumerate(classes)}
    return np.array([index[sample_id.partition("/")[0]] for sample_id in ids], np.int32)

"""`wds:PATTERN`: samples in shards of the WebDataset layout, read at random through an index of each shard."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.class_folders import EXTENSIONS
from buttress.sources.locations import absolute, expand_braces, files_of, split_query
from buttress.sources.remote import is_remote, one_line, read_all
from buttress.sources.source import (
    NO_LABEL,
    Sample,
    checked_labels,
    first_repeat,
    label_or_none,
    nfc,
    numbered_classes,
)
from buttress.sources.tar_index import is_indexed, open_index
from buttress.sources.tar_reader import Rows, TarReader
from buttress.sources.tar_scan import BAD_LABEL, Members
from buttress.terminal import progress

_IMAGES = frozenset(ending[1:] for ending in EXTENSIONS)


class WebDatasetSource:
    """Samples of tar shards, in the order of the shards and of their members.

    The members of a shard that share a key are one sample; the key is the path up to the first dot of its last
    component. The image is the member whose whole extension is that of an image (`.jpg`, not `.seg.png`); the label is
    the number in `.cls`, else under `label` in `.json`. The id is `SHARD.tar/KEY`, so another cut into shards makes
    other ids. A sample with a label and no image counts as a broken image.

    Args:
        location: `PATTERN[?classes=FILE]`: a path or URL, with `{000..007}`, `{a,b}` and the globs `* ? [...]`, or a
            folder of `*.tar`; `classes` names a text file with a class name a line, the first for label 0.
        labels: false ignores labels and class names.

    Raises: `SourceError` where shards are absent or refused, keys repeat, or labels do not fit.
    """

    def __init__(self, location: str, *, labels: bool = True) -> None:
        self.uri = f"wds:{location}"
        pattern, chosen = split_query("wds", location, ("classes",))
        archives = _shards(pattern)
        opened = _open(archives)
        shards = [_samples(members, archive) for members, archive in zip(opened, archives, strict=True)]
        self.ids = _ids(archives, [shard.keys for shard in shards])
        if not self.ids:
            others = sum(members.others for members in opened)
            raise SourceError(f"{pattern}: found 0 samples and {others} other files in {len(archives)} shards")
        self.classes: tuple[str, ...] | None = None
        self.labels: NDArray[np.int32] = np.full(len(self.ids), NO_LABEL, np.int32)
        if labels and ("classes" in chosen or any(max(shard.label_files, default=-1) >= 0 for shard in shards)):
            numbers = np.concatenate([_labels(*shard) for shard in zip(opened, shards, archives, strict=True)])
            names = _class_names(chosen["classes"]) if "classes" in chosen else numbered_classes(numbers, pattern)
            self.classes, self.labels = names, checked_labels(numbers, len(numbers), names, pattern)
        self._reader = TarReader(archives, Rows.of(opened, [shard.images for shard in shards]))
        self.chunks = self._reader.chunks

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[index]
        return Sample(sample_id, self._reader.read(index, sample_id), label_or_none(self.labels[index]))


def _shards(pattern: str) -> list[str]:
    """The files that the pattern means, in its order, each once."""
    names = expand_braces(pattern)
    # of several names each stands for one file; that it is there shows when it is opened
    several = len(names) > 1
    found = [
        file
        for name in names
        for file in ([absolute(name)] if several and not glob.has_magic(name) else files_of(name, ".tar"))
    ]
    if not found:
        raise SourceError(f"{pattern}: no shard found there (a tar file, a folder of *.tar, or a pattern is expected)")
    if (repeat := first_repeat(found)) is not None:
        raise SourceError(f"{pattern}: means {repeat} twice")
    return found


def _open(archives: Sequence[str]) -> list[Members]:
    """The index of every shard; a bar shows those that must be looked through first."""
    missing = sum(not is_indexed(archive) for archive in archives)
    if not missing:
        return [open_index(archive, archive) for archive in archives]
    opened = []
    with progress("indexing shards", len(archives), "shards") as bar:
        for archive in archives:
            opened.append(open_index(archive, archive))
            bar.advance()
    return opened


class _Shard(NamedTuple):
    """Of every sample: its key, and the member numbers of its image and its label file (-1 = none)."""

    keys: list[str]
    images: list[int]
    label_files: list[int]


def _samples(members: Members, archive: str) -> _Shard:
    """The samples of one shard, in the order of their first members."""
    parts: dict[str, dict[str, int]] = {}
    for row, name in enumerate(members.names):
        folder, slash, base = name.rpartition("/")
        stem, _, ending = base.partition(".")
        kind = "image" if ending.lower() in _IMAGES else ending.lower()
        # a .json without a label is about something else
        if kind not in ("image", "cls") and not (kind == "json" and members.labels[row] != NO_LABEL):
            continue
        sample = parts.setdefault(folder + slash + stem, {})
        if kind in sample:
            both = f"{members.names[sample[kind]]!r} and {name!r}"
            raise SourceError(f"{archive}: two members of one sample, {both}; make the shard anew with one {kind} each")
        sample[kind] = row
    images = [sample.get("image", -1) for sample in parts.values()]
    return _Shard(list(parts), images, [sample.get("cls", sample.get("json", -1)) for sample in parts.values()])


def _labels(members: Members, shard: _Shard, archive: str) -> NDArray[np.int64]:
    """The label of every sample of a shard; -1 = none."""
    labels = np.append(members.labels, NO_LABEL).astype(np.int64)[shard.label_files]
    if (wrong := np.flatnonzero(labels == BAD_LABEL)).size:
        name = members.names[shard.label_files[int(wrong[0])]]
        what = "an integer, 0 and up" if name.lower().endswith(".cls") else "an object with an integer 'label'"
        raise SourceError(f"{archive}: {name!r} is not {what} (-1 = no label)")
    return labels


def _ids(archives: Sequence[str], keys: Sequence[Sequence[str]]) -> tuple[str, ...]:
    names = [os.path.basename(archive) for archive in archives]
    if (repeat := first_repeat(names)) is not None:
        raise SourceError(f"two shards are named {repeat!r}, and names of shards are part of the ids; rename one")
    return tuple(nfc(f"{name}/{key}") for name, shard in zip(names, keys, strict=True) for key in shard)


def _class_names(file: str) -> tuple[str, ...]:
    """A name a line, empty lines at the end aside."""
    path = absolute(file)
    try:
        if is_remote(path):
            data = read_all(path)
        else:
            with open(path, "rb") as opened:
                data = opened.read()
        names = tuple(nfc(line.strip()) for line in data.decode().rstrip().split("\n"))
    except (OSError, UnicodeDecodeError) as failure:
        raise SourceError(f"{file}: cannot be read as class names, one a line ({one_line(failure)})") from failure
    if (repeat := first_repeat(names)) is not None:
        raise SourceError(f"{file}: two classes are named {repeat!r}")
    return names

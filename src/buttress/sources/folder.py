"""`folder:DIR`: image files in a folder; where they lie in sub-folders, those are the classes."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from buttress.errors import SourceError
from buttress.sources.class_folders import EXTENSIONS, class_folders, sorted_ids
from buttress.sources.source import Sample, UndecodableImage, label_or_none

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
        self.ids, self._raw_paths = sorted_ids(found.paths, str(folder))
        self.classes, self.labels = class_folders(self.ids, found.top_folders, str(folder), labels=labels)

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

"""`tar:FILE`: a folder of images in one tar file, read where it lies."""

from __future__ import annotations

from buttress.errors import SourceError
from buttress.sources.class_folders import EXTENSIONS, class_folders
from buttress.sources.locations import absolute
from buttress.sources.source import Sample, first_repeat, label_or_none
from buttress.sources.tar_index import open_index
from buttress.sources.tar_reader import Rows, TarReader


class TarSource:
    """The images of a plain tar file, in its order. Ids and classes are those of the folder it was made from.

    The id is the path inside the archive; where all images lie below one folder that itself holds none but in
    sub-folders (`tar -cf photos.tar photos`), that folder is the archive's own name and no part of the ids. Labels as
    `FolderSource` has them. The archive is looked through once (`tar_index.py`); then an image is one read.

    Args:
        location: path or URL of an uncompressed tar file.
        labels: false takes loose and nested images alike, without labels.

    Raises: `SourceError` for an archive that is absent, compressed, damaged, empty or ambiguous.
    """

    def __init__(self, location: str, *, labels: bool = True) -> None:
        self.uri = f"tar:{location}"
        archive = absolute(location)
        members = open_index(archive, location)
        images = [row for row, name in enumerate(members.names) if name.lower().endswith(EXTENSIONS)]
        if not images:
            raise SourceError(
                f"{location}: found 0 images and {members.others} other files; images end in {' '.join(EXTENSIONS)}"
            )
        self.ids = _ids([members.names[row] for row in images])
        if (repeat := first_repeat(self.ids)) is not None:
            raise SourceError(f"{location}: the archive holds {repeat!r} twice; make it anew with one of each")
        top_folders = {sample_id.partition("/")[0] for sample_id in self.ids if "/" in sample_id}
        self.classes, self.labels = class_folders(self.ids, top_folders, location, labels=labels)
        self._reader = TarReader([archive], Rows.of([members], [images]))
        self.chunks = self._reader.chunks

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[index]
        return Sample(sample_id, self._reader.read(index, sample_id), label_or_none(self.labels[index]))


def _ids(names: list[str]) -> tuple[str, ...]:
    """The names, without the one folder above all of them where there are class folders in it."""
    top = names[0].partition("/")[0] + "/"
    if all(name.startswith(top) and "/" in name[len(top) :] for name in names):
        return tuple(name[len(top) :] for name in names)
    return tuple(names)

"""`folder:URL`: image files in a folder of a store that fsspec knows."""

from __future__ import annotations

from buttress.errors import SourceError
from buttress.sources.class_folders import EXTENSIONS, class_folders, sorted_ids
from buttress.sources.remote import files_below, open_store, reported
from buttress.sources.source import Sample, UndecodableImage, label_or_none


class RemoteFolderSource:
    """The images of a folder in a store; ids, order and labels as `FolderSource` has them.

    Every image is one request, so for many small images shards (`wds:`) are the better form.

    Raises: `SourceError` for a folder that is absent, empty or ambiguous, or a store that is not known.
    """

    def __init__(self, url: str, *, labels: bool = True) -> None:
        self.uri = f"folder:{url}"
        self._root = url.rstrip("/")
        files = [path for path in files_below(url) if not path.startswith(".") and "/." not in path]
        paths = [path for path in files if path.lower().endswith(EXTENSIONS)]
        if not paths:
            others = f"{len(files)} other files; images end in {' '.join(EXTENSIONS)}"
            raise SourceError(f"{url}: found 0 images and {others}")
        self.ids, self._raw_paths = sorted_ids(paths, url)
        # a store has no empty folders; those without an image hold something else
        top_folders = {path.partition("/")[0] for path in files if "/" in path}
        self.classes, self.labels = class_folders(self.ids, top_folders, url, labels=labels)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[index]
        url = f"{self._root}/{self._raw_paths.get(sample_id, sample_id)}"
        store, path = open_store(url)
        with reported(url, missing=UndecodableImage):
            data = bytes(store.cat_file(path))
        return Sample(sample_id, data, label_or_none(self.labels[index]))

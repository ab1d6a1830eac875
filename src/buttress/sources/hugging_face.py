"""`hf:NAME_OR_DIR[:SPLIT]`: a data set of the Hugging Face hub, of its cache, or of a folder, through `datasets`.

`datasets` 4 and later runs no code that comes with a data set. Its Arrow files are mapped into memory, so an image
costs the same in any order, and the source pickles as the files' paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.nearest import did_you_mean
from buttress.sources.columns import COLUMN_KEYS, Columns, column_classes, find_columns, numbered
from buttress.sources.identity import content_hash, content_ids
from buttress.sources.locations import split_query
from buttress.sources.remote import one_line
from buttress.sources.source import NO_LABEL, Sample, UndecodableImage, first_repeat, label_or_none, nfc

if TYPE_CHECKING:
    import datasets

BESIDE = frozenset(("", ".csv", ".json", ".jsonl", ".md", ".txt", ".py", ".yaml", ".yml"))  # what data files come with


class HuggingFaceSource:
    """One split of a data set with an image column; the encoded bytes stay as they are.

    Ids: the `id=` column, else the paths inside the image column where all are there, relative and unique, else hashes
    of the encoded bytes (repeats with `.1`, `.2`), for which all images are read once. Labels: the class names of a
    `ClassLabel`, else as `ParquetSource` has them.

    Args:
        location: `NAME_OR_DIR[:SPLIT][?image=COLUMN&label=COLUMN&id=COLUMN]`; the folder may be one of `save_to_disk`
            or one that `load_dataset` takes. The split may be left out where there is one that has every file.
        labels: false ignores the label column.

    Raises: `SourceError` where `datasets` is not installed, or the data set, split or columns do not exist.
    """

    def __init__(self, location: str, *, labels: bool = True) -> None:
        self.uri = f"hf:{location}"
        path, chosen = split_query("hf", location, COLUMN_KEYS)
        name, split = _name_and_split(path)
        loaded = _load(name)
        dataset = _one_split(loaded, name, split)
        if split is None and isinstance(loaded, dict):
            _refuse_files_left_out(name, next(iter(loaded)))
        schema = dataset.features.arrow_schema
        columns = find_columns(schema, f"hf:{path}", chosen | _image_column(dataset, chosen), labels=labels)
        self._root = os.path.abspath(name) if os.path.isdir(name) else ""
        self._images = _undecoded(dataset, columns.image)
        self.ids = self._read_ids(dataset, columns)
        self.classes: tuple[str, ...] | None = None
        self.labels: NDArray[np.int32] = np.full(len(dataset), NO_LABEL, np.int32)
        if columns.label is not None:
            names = column_classes(schema.metadata or {}, columns.label, f"hf:{path}")
            self.labels, self.classes = numbered(
                _values(dataset, columns.label), names, f"hf:{path}: column {columns.label!r}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[index]
        data = _bytes(self._images[int(index)]["image"])
        if data is None:
            raise UndecodableImage(f"{self.uri}: {sample_id!r} has no image bytes")
        return Sample(sample_id, data, label_or_none(self.labels[index]))

    def _read_ids(self, dataset: datasets.Dataset, columns: Columns) -> tuple[str, ...]:
        if columns.id is not None:
            values = _values(dataset, columns.id)
            if None in values:
                raise SourceError(f"{self.uri}: the id column {columns.id!r} is empty in row {values.index(None)}")
            ids = tuple(nfc(str(value)) for value in values)
            if (repeat := first_repeat(ids)) is not None:
                raise SourceError(f"{self.uri}: the id {repeat!r} stands twice in column {columns.id!r}")
            return ids
        paths = self._paths() if columns.image_path is not None else None
        return paths or content_ids(content_hash(data or b"") for data in self._all_bytes())

    def _paths(self) -> tuple[str, ...] | None:
        """The paths in the image column, in a local folder relative to it; none where they name no file for good."""
        import pyarrow.compute as compute

        table = self._images.with_format("arrow")[:]
        raw = compute.struct_field(table.column("image"), "path").to_pylist()
        paths = [nfc(_below(path or "", self._root)) for path in raw]
        # the hub's cache has another place on every machine
        usable = all(path and not os.path.isabs(path) and "://" not in path for path in paths)
        return tuple(paths) if usable and first_repeat(paths) is None else None

    def _all_bytes(self) -> Iterator[bytes | None]:
        for index in range(len(self._images)):
            yield _bytes(self._images[index]["image"])


def _name_and_split(path: str) -> tuple[str, str | None]:
    if os.path.isdir(os.path.expanduser(path)):
        return os.path.expanduser(path), None
    name, _, split = path.partition(":")
    if not name or path.count(":") > 1:
        raise SourceError(f"hf:{path}: a name or folder is expected behind hf:, then perhaps :SPLIT")
    full = os.path.expanduser(name)
    if name.startswith((".", "/", "~")) and not os.path.isdir(full):
        raise SourceError(f"hf:{path}: no such folder")
    return full, split or None


def _load(name: str) -> Any:
    """A `Dataset` or a `DatasetDict`."""
    try:
        import datasets
    except ImportError as failure:
        raise SourceError("hf: needs the datasets library: pip install buttress[hf]") from failure
    try:
        return datasets.load_from_disk(name) if _is_saved(name) else datasets.load_dataset(name)
    except Exception as failure:  # the hub's, Arrow's and the builders' errors have no family in common
        cause = failure.__cause__ if isinstance(failure.__cause__, Exception) else failure
        reason = f"{type(cause).__name__}: {one_line(cause)}"
        raise SourceError(f"hf:{name}: cannot be loaded ({reason})") from failure


def _one_split(loaded: Any, name: str, split: str | None) -> datasets.Dataset:
    if not isinstance(loaded, dict):
        if split is not None:
            raise SourceError(f"hf:{name}:{split}: the folder holds one data set without splits; leave :{split} out")
        return loaded
    known = list(loaded)
    if split is None and len(known) == 1:
        return loaded[known[0]]
    if split in known:
        return loaded[split]
    if split is None:
        raise SourceError(f"hf:{name}: its splits are {', '.join(known)}; choose one, e.g. hf:{name}:{known[0]}")
    raise SourceError(f"hf:{name}:{split}: no such split; there are {', '.join(known)}{did_you_mean(split, known)}")


def _refuse_files_left_out(name: str, split: str) -> None:
    """Refuse a plain folder of whose files `datasets` takes some alone, for their names look like those of a split.

    A folder that says by its card (README.md) which files it means is taken at its word.
    """
    import datasets

    root = os.path.abspath(name)
    if not os.path.isdir(name) or _is_saved(name) or _card_names_files(name):
        return
    by_split = datasets.load_dataset_builder(name).config.data_files or {}
    taken = [str(file) for files in by_split.values() for file in files]
    if not all(file.startswith(root + os.sep) for file in taken):
        return
    kinds = {_kind(file) for file in taken} - {None}
    every = {file for file in _files_below(root) if _kind(file) in kinds}
    left = sorted(every - set(taken))
    if left:
        raise SourceError(
            f"hf:{name}: no split is named, and {len(left):,} of its {len(every):,} files (e.g. "
            f"{_below(left[0], root)}) are in none: datasets finds one split alone, by names with {split!r} in them; "
            f"take hf:{name}:{split} for that, or folder:{name} for all images"
        )


def _is_saved(name: str) -> bool:
    """Whether a folder is one of `save_to_disk`."""
    return any(os.path.isfile(os.path.join(name, file)) for file in ("state.json", "dataset_dict.json"))


def _card_names_files(name: str) -> bool:
    try:
        with open(os.path.join(name, "README.md"), encoding="utf-8", errors="replace") as file:
            return "data_files:" in file.read()
    except FileNotFoundError:
        return False


def _files_below(root: str) -> Iterator[str]:
    """Every file that is not hidden, nor in a hidden folder."""
    for folder, folders, files in os.walk(root):
        folders[:] = [one for one in folders if not one.startswith((".", "__"))]
        yield from (os.path.join(folder, file) for file in files if not file.startswith((".", "__")))


def _kind(file: str) -> str | None:
    """A file's extension; none for what stands beside the data."""
    stem, extension = os.path.splitext(os.path.basename(file))
    return None if stem == "metadata" or extension in BESIDE else extension.lower()


def _image_column(dataset: datasets.Dataset, chosen: dict[str, str]) -> dict[str, str]:
    """The image column by its declared type, where there is one such: sounds, too, are stored as bytes and path."""
    import datasets

    declared = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    return {"image": declared[0]} if len(declared) == 1 and "image" not in chosen else {}


def _undecoded(dataset: datasets.Dataset, column: str) -> datasets.Dataset:
    """The image column alone, named `image`, as stored."""
    import datasets

    images = dataset.select_columns([column]).with_format(None)
    if isinstance(images.features[column], datasets.Image):
        images = images.cast_column(column, datasets.Image(decode=False))
    return images if column == "image" else images.rename_column(column, "image")


def _values(dataset: datasets.Dataset, column: str) -> list[Any]:
    return list(dataset.select_columns([column]).with_format("arrow")[:].column(0).to_pylist())


def _below(path: str, root: str) -> str:
    return path[len(root) + 1 :] if root and path.startswith(root + os.sep) else path


def _bytes(image: Any) -> bytes | None:
    """Encoded bytes of a cell; where it holds the path of a file alone, those of the file."""
    data: bytes | None = image["bytes"] if isinstance(image, dict) else image
    path = image.get("path") if isinstance(image, dict) else None
    if data is not None or not path or not os.path.isabs(path):
        return data
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None

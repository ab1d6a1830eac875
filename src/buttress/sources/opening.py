"""From a source URI to the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from buttress.errors import SourceError
from buttress.nearest import nearest
from buttress.sources.arrays import Relabelled
from buttress.sources.digits import open_digits
from buttress.sources.folder import FolderSource
from buttress.sources.hugging_face import HuggingFaceSource
from buttress.sources.imagenet_sets import IMAGENET_SETS, ImageNetSet
from buttress.sources.packed import PackedSource
from buttress.sources.parquet import ParquetSource
from buttress.sources.remote import is_remote
from buttress.sources.remote_folder import RemoteFolderSource
from buttress.sources.source import Source
from buttress.sources.tar import TarSource
from buttress.sources.torchvision_sets import TorchvisionSource
from buttress.sources.webdataset import WebDatasetSource


def _open_folder(location: str, *, labels: bool) -> Source:
    return (RemoteFolderSource if is_remote(location) else FolderSource)(location, labels=labels)


_OPENERS: Mapping[str, Callable[..., Source]] = {
    "folder": _open_folder,
    "parquet": ParquetSource,
    "packed": PackedSource,
    "tar": TarSource,
    "wds": WebDatasetSource,
    "hf": HuggingFaceSource,
    "torchvision": TorchvisionSource,
    **{name: partial(ImageNetSet, name, open_folder=_open_folder) for name in IMAGENET_SETS},
}
_KNOWN = (
    "folder:DIR, packed:DIR, parquet:FILE[?image=COLUMN&label=COLUMN&id=COLUMN], tar:FILE, "
    "wds:PATTERN[?classes=FILE], hf:NAME_OR_DIR[:SPLIT], torchvision:NAME[:ROOT][?split=SPLIT], "
    f"{', '.join(f'{name}:DIR' for name in IMAGENET_SETS)}, digits"
)
_NEEDS = {"wds": "pattern", "hf": "name or folder", "torchvision": "name"}


def open_source(source: str | Source, *, labels: bool = True) -> Source:
    """Open a source URI (docs/sources.md lists them all); a source that is already one comes back as it is.

    Args:
        source: the URI, or an object with the `Source` protocol.
        labels: False ignores all labels and class names (a folder then also ignores its sub-folders).

    Raises: `SourceError`, one line that says what was found.
    """
    if not isinstance(source, str):
        return source if labels or source.classes is None else Relabelled(source, None)
    scheme, colon, rest = source.partition(":")
    if scheme == "digits" and not colon:
        return open_digits(labels=labels)
    if scheme in _OPENERS and rest:
        return _OPENERS[scheme](rest, labels=labels)
    raise SourceError(f"unknown source {source!r}{_hint(source, scheme, rest)}; known are {_KNOWN}")


def _hint(source: str, scheme: str, rest: str) -> str:
    path = Path(source).expanduser()
    if scheme in _OPENERS:
        return f": {scheme}: needs a {_NEEDS.get(scheme, 'path')} behind it"
    if scheme == "digits":
        return ": did you mean 'digits'? It has no parts"
    if path.suffix in (".parquet", ".tar") and not rest:
        return f": did you mean '{path.suffix[1:]}:{source}'?"
    if path.is_dir() or rest.startswith("//"):
        return f": did you mean '{_folder_scheme(path)}:{source}'?"
    near = nearest(scheme.lower(), (*_OPENERS, "digits"), count=1)
    if near:
        return f": did you mean {near[0] + (':' + rest if rest else '')!r}?"
    return "" if rest else f": did you mean 'folder:{source}'?"


def _folder_scheme(path: Path) -> str:
    """What a folder holds, as far as one look tells."""
    if (path / "packed.json").is_file():
        return "packed"
    saved = (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file()
    return "hf" if saved else "folder"

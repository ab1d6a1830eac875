"""From a source URI to the source."""

from __future__ import annotations

from pathlib import Path

from buttress.errors import SourceError
from buttress.nearest import nearest
from buttress.sources.arrays import Relabelled
from buttress.sources.digits import open_digits
from buttress.sources.folder import FolderSource
from buttress.sources.parquet import ParquetSource
from buttress.sources.source import Source

_KNOWN = "folder:DIR, parquet:FILE[?image=COLUMN&label=COLUMN&id=COLUMN], digits"


def open_source(source: str | Source, *, labels: bool = True) -> Source:
    """Open `folder:DIR`, `parquet:FILE`, `digits`; a source that is already one comes back as it is.

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
    if scheme == "folder" and rest:
        return FolderSource(rest, labels=labels)
    if scheme == "parquet" and rest:
        return ParquetSource(rest, labels=labels)
    raise SourceError(f"unknown source {source!r}{_hint(source, scheme, rest)}; known are {_KNOWN}")


def _hint(source: str, scheme: str, rest: str) -> str:
    path = Path(source).expanduser()
    if path.is_dir():
        return f": did you mean 'folder:{source}'?"
    if path.suffix == ".parquet":
        return f": did you mean 'parquet:{source}'?"
    if scheme in ("folder", "parquet"):
        return f": {scheme}: needs a path behind it"
    if scheme == "digits":
        return ": did you mean 'digits'? It has no parts"
    near = nearest(scheme.lower(), ("folder", "parquet", "digits"), count=1)
    if near:
        return f": did you mean {near[0] + (':' + rest if rest else '')!r}?"
    return "" if rest else f": did you mean 'folder:{source}'?"

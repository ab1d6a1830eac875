"""Where the images, labels, ids and class names stand in a Parquet file."""

from __future__ import annotations

import glob
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.nearest import did_you_mean
from buttress.sources.source import NO_LABEL, checked_labels, first_repeat, nfc, numbered_classes

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_KEYS = ("image", "label", "id")
_IMAGE_NAMES = ("image", "img", "jpg")
_LABEL_NAMES = ("label", "labels", "fine_label")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns in use. `image_bytes` and `image_path` are leaves, so that only what is needed is read."""

    image: str
    image_bytes: str
    image_path: str | None
    label: str | None
    id: str | None

    def check(self, schema: pa.Schema, file: str) -> None:
        """Raise `SourceError` where a file lacks a column that the first file has."""
        for column in filter(None, (self.image, self.label, self.id)):
            if column not in schema.names:
                raise SourceError(f"{file}: has no column {column!r} as the first file has; {_columns_text(schema)}")


def split_query(location: str) -> tuple[str, dict[str, str]]:
    """`FILE?image=A&label=B` -> the path and the columns asked for. A `?` without `=` behind it belongs to a glob."""
    path, mark, query = location.rpartition("?")
    if not mark or "=" not in query:
        return location, {}
    chosen: dict[str, str] = {}
    for part in query.split("&"):
        key, _, column = part.partition("=")
        if key not in _KEYS:
            known = "(known are image, label, id)"
            raise SourceError(f"parquet:{location}: unknown key {key!r} {known}{did_you_mean(key, _KEYS)}")
        if key in chosen or not column:
            raise SourceError(f"parquet:{location}: {key}= must name one column, once")
        chosen[key] = unquote(column)
    return path, chosen


def parquet_files(path: str) -> list[str]:
    """The files that a path means, absolute and sorted: the file itself, those in a folder, or those of a glob."""
    full = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(full):
        return [full]
    pattern = os.path.join(glob.escape(full), "*.parquet") if os.path.isdir(full) else full
    files = sorted(file for file in glob.glob(pattern, recursive=True) if os.path.isfile(file))
    if not files:
        raise SourceError(f"{path}: no Parquet file found there (a file, a folder of *.parquet, or a glob is expected)")
    return files


def open_file(file: str) -> pq.ParquetFile:
    """A memory-mapped Parquet file; use it in a `with` block."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as failure:
        raise SourceError("parquet: needs pyarrow: pip install buttress[parquet]") from failure
    try:
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowException, OSError) as failure:
        raise _unreadable(file, failure) from failure


def read_column(file: str, column: str, row_group: int | None = None) -> pa.ChunkedArray:
    """One column (a leaf may be named `struct.leaf`) of a whole file or of one row group."""
    with open_file(file) as parquet:
        import pyarrow as pa

        groups = range(parquet.num_row_groups) if row_group is None else [row_group]
        try:
            # one column gains nothing from threads, and workers are many already
            return parquet.read_row_groups(groups, columns=[column], use_threads=False).column(0)
        except (pa.ArrowException, OSError) as failure:
            raise _unreadable(file, failure) from failure


def _unreadable(file: str, failure: Exception) -> SourceError:
    reason = str(failure).partition("\n")[0]
    return SourceError(f"{file}: cannot be read as Parquet ({reason})")


def find_columns(file: str, chosen: dict[str, str], *, labels: bool) -> Columns:
    """The columns of `file`: as chosen, else found by name and type."""
    with open_file(file) as parquet:
        schema = parquet.schema_arrow
    for key, column in chosen.items():
        if column not in schema.names:
            hint = did_you_mean(column, schema.names)
            raise SourceError(f"{file}: {key}={column}: no such column; {_columns_text(schema)}{hint}")
    image = chosen.get("image") or _find_image(schema, file)
    kind = schema.field(image).type
    if not _is_image(kind):
        raise SourceError(f"{file}: image={image}: holds {kind}, not encoded images (binary, or struct with bytes)")
    leaves = {kind.field(number).name for number in range(kind.num_fields)}
    return Columns(
        image=image,
        image_bytes=f"{image}.bytes" if leaves else image,
        image_path=f"{image}.path" if "path" in leaves else None,
        label=(chosen.get("label") or _find_label(schema, chosen.get("id"))) if labels else None,
        id=chosen.get("id"),
    )


def _find_image(schema: pa.Schema, file: str) -> str:
    images = [field.name for field in schema if _is_image(field.type)]
    named = [name for name in images if name in _IMAGE_NAMES]
    structs = [name for name in images if schema.field(name).type.num_fields]
    for candidates in (structs, named, images):
        if len(candidates) == 1:
            return str(candidates[0])
    found = f"several image columns ({', '.join(images)})" if images else "no image column"
    raise SourceError(f"{file}: {found}; name one with ?image=COLUMN; {_columns_text(schema)}")


def _find_label(schema: pa.Schema, id_column: str | None) -> str | None:
    named = [name for name in _LABEL_NAMES if name in schema.names]
    integers = [field.name for field in schema if _is_integer(field.type) and field.name != id_column]
    if named:
        return named[0]
    return integers[0] if len(integers) == 1 else None


def _is_image(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_image(kind.field(index).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_integer(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind))


def _columns_text(schema: pa.Schema) -> str:
    return "columns are " + ", ".join(schema.names)


def read_labels(files: list[str], column: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Labels [N] (null = -1) and class names: from the metadata, else the numbers, or the sorted texts, themselves."""
    names: set[tuple[str, ...] | None] = set()
    for file in files:
        with open_file(file) as parquet:
            names.add(_class_names(parquet.schema_arrow.metadata or {}, column, file))
    if len(names) > 1:
        raise SourceError(f"{files[0]}: the files beside it name other classes; open them one by one")
    values = [value for file in files for value in read_column(file, column).to_pylist()]
    return _numbered(values, names.pop(), f"{files[0]}: column {column!r}")


def _numbered(
    values: list[Any], classes: tuple[str, ...] | None, place: str
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, str) for value in known):
        classes = classes or tuple(sorted({nfc(value) for value in known}))
        index = {name: label for label, name in enumerate(classes)}
        if unknown := next((value for value in known if nfc(value) not in index), None):
            raise SourceError(f"{place}: {unknown!r} is not among the class names of the file")
        values = [None if value is None else index[nfc(value)] for value in values]
    elif not all(isinstance(value, int) and not isinstance(value, bool) for value in known):
        raise SourceError(f"{place}: holds neither integers nor texts, so no labels; choose one with ?label=COLUMN")
    if known and isinstance(known[0], int) and max(known) > np.iinfo(np.int32).max:
        raise SourceError(f"{place}: {max(known)} does not look like a class number; choose one with ?label=COLUMN")
    labels = np.array([NO_LABEL if value is None else value for value in values], np.int64)
    classes = classes or numbered_classes(labels, place)
    return checked_labels(labels, len(labels), classes, place), classes


def _class_names(metadata: dict[bytes, bytes], column: str, file: str) -> tuple[str, ...] | None:
    """Class names from the schema metadata: `COLUMN_names`, or the ClassLabel of a Hugging Face data set."""
    try:
        names = json.loads(metadata.get(f"{column}_names".encode(), b"null"))
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = names or features.get(column, {}).get("names")
    except (ValueError, AttributeError) as failure:
        raise SourceError(f"{file}: its schema metadata (class names) is not valid JSON of objects") from failure
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SourceError(f"{file}: the class names of column {column!r} are not a list of texts")
    if (repeat := first_repeat(tuple(map(nfc, names)))) is not None:
        raise SourceError(f"{file}: two classes of column {column!r} are named {repeat!r}")
    return tuple(map(nfc, names))

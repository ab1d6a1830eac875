"""Which columns of a table hold images, labels and ids, and what the classes are called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.nearest import did_you_mean
from buttress.sources.source import NO_LABEL, checked_labels, first_repeat, nfc, numbered_classes

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN_KEYS = ("image", "label", "id")
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

    def check(self, schema: pa.Schema, place: str) -> None:
        """Raise `SourceError` where a file lacks a column that the first file has."""
        for column in filter(None, (self.image, self.label, self.id)):
            if column not in schema.names:
                raise SourceError(f"{place}: has no column {column!r} as the first file has; {_columns_text(schema)}")


def find_columns(schema: pa.Schema, place: str, chosen: dict[str, str], *, labels: bool) -> Columns:
    """The columns in use: as chosen, else found by name and type.

    Args:
        schema: of the first file.
        place: what an error names.
        chosen: column by key (`COLUMN_KEYS`).
        labels: false looks for no label column.

    Raises: `SourceError` for columns that are absent, ambiguous or of another type.
    """
    for key, column in chosen.items():
        if column not in schema.names:
            hint = did_you_mean(column, schema.names)
            raise SourceError(f"{place}: {key}={column}: no such column; {_columns_text(schema)}{hint}")
    image = chosen.get("image") or _find_image(schema, place)
    kind = schema.field(image).type
    if not _is_image(kind):
        raise SourceError(f"{place}: image={image}: holds {kind}, not encoded images (binary, or struct with bytes)")
    leaves = {kind.field(number).name for number in range(kind.num_fields)}
    return Columns(
        image=image,
        image_bytes=f"{image}.bytes" if leaves else image,
        image_path=f"{image}.path" if "path" in leaves else None,
        label=(chosen.get("label") or _find_label(schema, chosen.get("id"))) if labels else None,
        id=chosen.get("id"),
    )


def _find_image(schema: pa.Schema, place: str) -> str:
    images = [field.name for field in schema if _is_image(field.type)]
    named = [name for name in images if name in _IMAGE_NAMES]
    structs = [name for name in images if schema.field(name).type.num_fields]
    for candidates in (structs, named, images):
        if len(candidates) == 1:
            return str(candidates[0])
    found = f"several image columns ({', '.join(images)})" if images else "no image column"
    raise SourceError(f"{place}: {found}; name one with ?image=COLUMN; {_columns_text(schema)}")


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


def numbered(
    values: list[Any], classes: tuple[str, ...] | None, place: str
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Labels [N] (None = -1) and class names: the names given, else the numbers, or the sorted texts, themselves."""
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


def column_classes(metadata: dict[bytes, bytes], column: str, place: str) -> tuple[str, ...] | None:
    """Class names from the schema metadata: `COLUMN_names`, or the ClassLabel of a Hugging Face data set."""
    try:
        names = json.loads(metadata.get(f"{column}_names".encode(), b"null"))
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = names or features.get(column, {}).get("names")
    except (ValueError, AttributeError) as failure:
        raise SourceError(f"{place}: its schema metadata (class names) is not valid JSON of objects") from failure
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SourceError(f"{place}: the class names of column {column!r} are not a list of texts")
    if (repeat := first_repeat(tuple(map(nfc, names)))) is not None:
        raise SourceError(f"{place}: two classes of column {column!r} are named {repeat!r}")
    return tuple(map(nfc, names))

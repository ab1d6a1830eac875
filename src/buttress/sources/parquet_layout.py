"""Parquet files, on a disk or in a store: which there are, opening them, reading one column."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.columns import column_classes, numbered
from buttress.sources.locations import files_of
from buttress.sources.remote import is_remote, open_store, reported

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def parquet_files(path: str) -> list[str]:
    """The files that a path means, absolute and sorted: the file itself, those in a folder, or those of a glob."""
    files = files_of(path, ".parquet")
    if not files:
        raise SourceError(f"{path}: no Parquet file found there (a file, a folder of *.parquet, or a glob is expected)")
    return files


def open_file(file: str) -> pq.ParquetFile:
    """A Parquet file, memory-mapped where it is local; use it in a `with` block."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as failure:
        raise SourceError("parquet: needs pyarrow: pip install buttress[parquet]") from failure
    try:
        if is_remote(file):
            store, path = open_store(file)
            with reported(file):
                return pq.ParquetFile(path, filesystem=store)
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowException, OSError) as failure:
        raise _unreadable(file, failure) from failure


def read_column(file: str, column: str, row_group: int | None = None) -> pa.ChunkedArray:
    """One column (a leaf may be named `struct.leaf`) of a whole file or of one row group."""
    with open_file(file) as parquet:
        import pyarrow as pa

        groups = range(parquet.num_row_groups) if row_group is None else [row_group]
        try:
            with reported(file) if is_remote(file) else nullcontext():
                # one column gains nothing from threads, and workers are many already
                return parquet.read_row_groups(groups, columns=[column], use_threads=False).column(0)
        except (pa.ArrowException, OSError) as failure:
            raise _unreadable(file, failure) from failure


def _unreadable(file: str, failure: Exception) -> SourceError:
    reason = str(failure).partition("\n")[0]
    return SourceError(f"{file}: cannot be read as Parquet ({reason})")


def read_labels(files: list[str], column: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Labels [N] (null = -1) and class names: from the metadata, else the numbers, or the sorted texts, themselves."""
    names: set[tuple[str, ...] | None] = set()
    for file in files:
        with open_file(file) as parquet:
            names.add(column_classes(parquet.schema_arrow.metadata or {}, column, file))
    if len(names) > 1:
        raise SourceError(f"{files[0]}: the files beside it name other classes; open them one by one")
    values = [value for file in files for value in read_column(file, column).to_pylist()]
    return numbered(values, names.pop(), f"{files[0]}: column {column!r}")

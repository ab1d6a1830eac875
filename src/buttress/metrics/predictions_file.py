"""Predictions as a table: `.csv` or `.parquet`, one row per image, the same columns in both.

Columns: `id`, `label` (empty where the image has none), then `class` and `probability` of the likeliest class,
`class_2` and `probability_2` of the next, and so on; all empty where the image cannot be decoded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buttress.errors import SettingsError
from buttress.files import write_atomic

if TYPE_CHECKING:
    from buttress.metrics.predictions import Predictions

ENDINGS = (".csv", ".parquet")


def check_ready(path: Path) -> None:
    """Raises: SettingsError, where predictions cannot be written to `path`: to be called before the work."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise SettingsError(f"--out {path}: ends in neither .csv nor .parquet; name it predictions.csv, say")
    if ending == ".parquet" and find_spec("pyarrow") is None:
        raise SettingsError(f"--out {path}: Parquet needs pyarrow: pip install buttress[parquet]; or name a .csv")
    if path.is_dir():
        raise SettingsError(f"--out {path}: is a folder; name a file in it")


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the table, atomically; by the ending as CSV (RFC 4180, UTF-8, six decimals) or Parquet (float32)."""
    write: Callable[[Predictions], bytes] = _csv if path.suffix.lower() == ".csv" else _parquet
    write_atomic(path, write(predictions))


def column_names(k: int) -> list[str]:
    """The columns of a table of the k likeliest classes."""
    places = ["", *(f"_{place}" for place in range(2, k + 1))]
    return ["id", "label", *(f"{name}{place}" for place in places for name in ("class", "probability"))]


def _csv(predictions: Predictions) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # its own dialect is RFC 4180: commas, CRLF, quotes doubled where needed
    writer.writerow(column_names(predictions.top_NK.shape[1]))
    writer.writerows(_rows(predictions))
    return text.getvalue().encode()


def _rows(predictions: Predictions) -> Iterator[list[str | None]]:
    for sample_id, label, top, probabilities in zip(
        predictions.ids,
        predictions.labels,
        predictions.top_NK.tolist(),
        predictions.probabilities_NK.tolist(),
        strict=True,
    ):
        row: list[str | None] = [sample_id, label]
        for number, probability in zip(top, probabilities, strict=True):
            empty = number < 0
            row += [None, None] if empty else [predictions.classes[number], f"{probability:.6f}"]
        yield row


def _parquet(predictions: Predictions) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: list[Any] = [pa.array(predictions.ids, pa.string()), pa.array(predictions.labels, pa.string())]
    names = (*predictions.classes, None)  # -1 is the last
    for place in range(predictions.top_NK.shape[1]):
        top = predictions.top_NK[:, place].tolist()
        columns.append(pa.array([names[number] for number in top], pa.string()))
        columns.append(pa.array(predictions.probabilities_NK[:, place], pa.float32(), from_pandas=True))  # NaN -> null
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, names=column_names(predictions.top_NK.shape[1])), buffer)
    result: bytes = buffer.getvalue().to_pybytes()
    return result

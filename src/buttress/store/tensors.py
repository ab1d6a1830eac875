"""The container: safetensors files, laid out by us byte for byte, and mapped after every number has been checked.

Layout (as the safetensors library writes it, which reads these files too): 8 bytes little-endian length of the header;
the header, JSON padded with spaces to a multiple of 8; the tensors, those of wider elements first, then by name.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.files import parse_json
from buttress.store.damage import DamageError, open_regular

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "U8": np.dtype("uint8"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tensors:
    """The tensors of one file, mapped read-only, and what stands before them.

    Args:
        arrays: by name.
        metadata: the header's strings.
        length: bytes of the file.
        header_sha256: of everything before the first tensor, in hex.
    """

    arrays: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, str]
    length: int
    header_sha256: str


def pack_tensors(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> tuple[bytes, str]:
    """The bytes of a safetensors file, the same for the same arrays, and the SHA-256 of all before the tensors."""
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name, array in ordered:
        span = [offset, offset + array.nbytes]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    body = b"".join(np.ascontiguousarray(array).data for _, array in ordered)
    return head + body, hashlib.sha256(head).hexdigest()


def map_tensors(path: Path) -> Tensors:
    """Map the tensors of a safetensors file; nothing but the header is read.

    Raises:
        DamageError: the file is missing, cut, or its header is not one of ours.
    """
    with open_regular(path) as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > _MAX_HEADER_BYTES:
            raise DamageError(path, "header", "not a safetensors file of ours (cut, or a header of impossible length)")
        text = file.read(length)
        if len(text) < length:
            raise DamageError(path, "header", "the file is cut inside its header")
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    try:
        header = parse_json(text, "header", StoreError)
        arrays = _arrays(header, mapped[8 + length :])
    except StoreError as failure:
        raise DamageError(path, "header", str(failure)) from failure
    metadata = header.get("__metadata__", {})
    return Tensors(arrays, metadata, len(mapped), hashlib.sha256(prefix + text).hexdigest())


def _arrays(header: Any, data: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The tensors of `header` inside `data`, which they must fill without gap or overlap."""
    if not isinstance(header, dict):
        raise StoreError("not a JSON object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        raise StoreError("__metadata__ is not an object of strings")
    entries = [(name, *_entry(name, value)) for name, value in header.items() if name != "__metadata__"]
    arrays, offset = {}, 0
    for name, dtype, shape, start, stop in sorted(entries, key=lambda entry: entry[3:]):
        if start != offset or stop > len(data):
            raise StoreError(f"tensor {name[:80]!r} lies at {start}-{stop}, not at {offset} inside {len(data)} bytes")
        arrays[name] = data[start:stop].view(dtype).reshape(shape)
        offset = stop
    if offset != len(data):
        raise StoreError(f"{len(data) - offset} bytes belong to no tensor")
    return arrays


def _entry(name: str, value: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    place = f"tensor {name[:80]!r}"
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise StoreError(f"{place}: not dtype, shape and data_offsets")
    dtype = _DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise StoreError(f"{place}: dtype {str(value['dtype'])[:20]!r} is not one of {', '.join(_DTYPES)}")
    shape, offsets = value["shape"], value["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise StoreError(f"{place}: shape and offsets must be lists of whole numbers from 0")
    if len(shape) > 8 or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise StoreError(f"{place}: shape {shape[:8]} does not fill offsets {offsets[:2]}")
    return dtype, tuple(shape), offsets[0], offsets[1]

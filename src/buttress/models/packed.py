"""A state dict in few bytes: palettes with packed indices, bitmasks, integers of few bits; bit-exact there and back.

The file is a safetensors file of two tensors of bytes (U8), `bits` and `values`, and the metadata key `packed`: JSON
    {"format": "buttress-packed", "version": 1, "tensors": {NAME: [E, "F32", [SIZE, ..], {FIELD: VALUE, ..}], ..}}
which says of every tensor its encoding E, its dtype and shape and, where E has any, the fields in brackets below.
Tensors stand in the order of that JSON, and each takes of `bits` and `values` what follows the part of the one before.
Values are little-endian, without padding. Bit strings begin on a byte; bit i is bit i mod 8 of byte i // 8, counted
from the least significant; numbers of b bits follow one another, each with its least significant bit first. E is

plain    values: the tensor.
palette  (bits = b, dim = D, groups = G, axis = A, scaled) bits: N indices of b bits for each of the groups. values,
         float32 (float64 for F64): a table [G, 2^b, D]; where scaled, a scale for each place along axis A; then, in
         the tensor's dtype, T numbers for each group. With axis A moved to the end, its places split into G runs and
         the runs moved to the front, the tensor is [G, X]: N = X // D rows of the table times the scales of their
         places, then the T = X mod D numbers as they are.
sparse   bits: for each number whether it is stored. values: those that are; the others are zero.
affine   (bits = b, scales) bits: an integer q of b bits for each number. values, float32: `scales` scales, then as many
         zero points, one for all or one for each place along axis 0; the tensor is (q - zero point) x scale.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from buttress.errors import ModelError
from buttress.files import write_atomic
from buttress.store.tensors import pack_tensors

FORMAT, VERSION, KEY = "buttress-packed", 1, "packed"
DTYPES: Final[dict[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Plain:
    """A tensor as it is."""

    encoding: ClassVar[str] = "plain"
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Palettised:
    """A tensor of rows that are entries of small tables.

    Args:
        shape: of the tensor; its dtype is that of `left_GT`.
        axis: along which its places are grouped, and are neighbours in a row.
        bits: b, 1..8.
        indices_GN: uint8, below 2^b.
        lut_GKD: tables, K = 2^b.
        scale_O: what the entries are multiplied by, for each place along the axis; none = 1.
        left_GT: what is left of each group after the last whole row, as it is.
    """

    encoding: ClassVar[str] = "palette"
    shape: tuple[int, ...]
    axis: int
    bits: int
    indices_GN: Tensor
    lut_GKD: Tensor
    scale_O: Tensor | None
    left_GT: Tensor


@dataclass(frozen=True, slots=True)
class Sparse:
    """A tensor many of whose numbers are zero (all bits of them)."""

    encoding: ClassVar[str] = "sparse"
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Affine:
    """A tensor (q - zero point) x scale.

    Args:
        integers: q, uint8 of the tensor's shape, below 2^bits.
        bits: 1..8.
        scale: one for all or one for each place along axis 0, float32.
        zero_point: as many, float32.
        dtype: of the tensor.
    """

    encoding: ClassVar[str] = "affine"
    integers: Tensor
    bits: int
    scale: Tensor
    zero_point: Tensor
    dtype: torch.dtype = torch.float32


Entry = Plain | Palettised | Sparse | Affine


@dataclass(frozen=True, slots=True)
class PackedSizes:
    """Bytes of a packed file, for `x / 1e6` MB.

    Args:
        indices: of everything in `bits`.
        palettes: of tables, scales and zero points.
        unclustered: of numbers that are stored as they are.
        file: of the whole file, names and JSON included.
    """

    indices: int
    palettes: int
    unclustered: int
    file: int


@dataclass(slots=True)
class _Packed:
    """One tensor's part of the file."""

    said: list[Any]
    bits: list[Bytes]
    tables: list[Bytes]
    numbers: list[Bytes]


def pack(entries: Mapping[str, Entry]) -> tuple[dict[str, Bytes], str]:
    """The file's tensors, and its JSON.

    Args:
        entries: by name, in the order in which they are stored.

    Raises:
        ModelError: a dtype that the format has no name for.
    """
    return _assembled({name: _packed(name, entry) for name, entry in entries.items()})


def _assembled(packed: Mapping[str, _Packed]) -> tuple[dict[str, Bytes], str]:
    tensors = {name: part.said for name, part in packed.items()}
    text = json.dumps({"format": FORMAT, "version": VERSION, "tensors": tensors}, separators=(",", ":"))
    parts = packed.values()
    bits = [piece for part in parts for piece in part.bits]
    values = [piece for part in parts for piece in (*part.tables, *part.numbers)]
    return {"bits": _joined(bits), "values": _joined(values)}, text


def packed_bytes(entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """The whole file; equal entries and metadata give equal bytes.

    Args:
        entries: by name.
        metadata: further strings for the file's header.
    """
    return _as_file(*pack(entries), metadata or {})


def _as_file(tensors: dict[str, Bytes], text: str, metadata: Mapping[str, str]) -> bytes:
    return pack_tensors(tensors, {**metadata, KEY: text})[0]


def write_packed(path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None) -> None:
    """Write the file atomically."""
    write_atomic(path, packed_bytes(entries, metadata))


def sizes(entries: Mapping[str, Entry]) -> PackedSizes:
    """What the entries take in a file."""
    packed = {name: _packed(name, entry) for name, entry in entries.items()}
    parts = packed.values()

    def total(pieces: Callable[[_Packed], list[Bytes]]) -> int:
        return sum(len(piece) for part in parts for piece in pieces(part))

    return PackedSizes(
        indices=total(lambda part: part.bits),
        palettes=total(lambda part: part.tables),
        unclustered=total(lambda part: part.numbers),
        file=len(_as_file(*_assembled(packed), {})),
    )


def to_bits(numbers_N: Tensor, bits: int) -> Bytes:
    """Numbers of `bits` bits, one after the other, the least significant bit first."""
    flat = numbers_N.detach().cpu().reshape(-1).numpy()
    single = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(single.reshape(-1), bitorder="little")


def _packed(name: str, entry: Entry) -> _Packed:
    if isinstance(entry, Palettised):
        return _packed_palette(name, entry)
    if isinstance(entry, Affine):
        fields = {"bits": entry.bits, "scales": entry.scale.numel()}
        said = [*_said(name, entry, tuple(entry.integers.shape), entry.dtype), fields]
        tables = [_raw(entry.scale.float()), _raw(entry.zero_point.float())]
        return _Packed(said, [to_bits(entry.integers, entry.bits)], tables, [])
    said = _said(name, entry, tuple(entry.tensor.shape), entry.tensor.dtype)
    raw = _raw(entry.tensor)
    if isinstance(entry, Plain):
        return _Packed(said, [], [], [raw])
    each = raw.reshape(entry.tensor.numel(), entry.tensor.itemsize)
    stored = each.any(axis=1)
    return _Packed(said, [np.packbits(stored, bitorder="little")], [], [each[stored].reshape(-1)])


def _packed_palette(name: str, entry: Palettised) -> _Packed:
    groups, _, dim = entry.lut_GKD.shape
    scaled = entry.scale_O is not None
    fields = {"bits": entry.bits, "dim": dim, "groups": groups, "axis": entry.axis, "scaled": scaled}
    said = [*_said(name, entry, entry.shape, entry.left_GT.dtype), fields]
    width = table_dtype(entry.left_GT.dtype)
    tables = [entry.lut_GKD] if entry.scale_O is None else [entry.lut_GKD, entry.scale_O]
    raw_tables = [_raw(table.to(width)) for table in tables]
    return _Packed(said, [to_bits(entry.indices_GN, entry.bits)], raw_tables, [_raw(entry.left_GT)])


def _said(name: str, entry: Entry, shape: tuple[int, ...], dtype: torch.dtype) -> list[Any]:
    if dtype not in _NAMES:
        raise ModelError(f"{name}: {dtype} has no place in a packed file; convert it to one of {', '.join(DTYPES)}")
    return [entry.encoding, _NAMES[dtype], list(shape)]


def table_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _raw(tensor: Tensor) -> Bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: Bytes = flat.view(torch.uint8).numpy()
    return raw


def _joined(pieces: list[Bytes]) -> Bytes:
    return np.concatenate([np.zeros(0, np.uint8), *pieces])

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
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from buttress.errors import ModelError
from buttress.files import parse_json, write_atomic
from buttress.store.tensors import pack_tensors

FORMAT, VERSION, KEY = "buttress-packed", 1, "packed"
MAX_BYTES = 2**33  # of all unpacked tensors; more is not read
_MAX_AXES = 8
_DTYPES: Final[dict[str, torch.dtype]] = {
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
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
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


def unpack(path: Path) -> dict[str, Tensor]:
    """The state dict of a packed file.

    Raises:
        ModelError: the file is absent, damaged, not a packed one, or would unpack to more than 8 GiB.
    """
    bits, values, said = _read(path)
    reader, unpacked, total = _Reader(str(path), bits, values), {}, 0
    for name, entry in said.items():
        place = f"tensor {name[:80]!r}"
        described = isinstance(entry, list) and len(entry) >= 3
        if not described or [type(fields) for fields in entry[3:]] not in ([], [dict]):
            raise reader.wrong(place, "is not described by encoding, dtype, shape and fields")
        encoding, dtype, shape = str(entry[0]), _dtype(entry[1], reader, place), _shape(entry[2], reader, place)
        total += math.prod(shape) * dtype.itemsize
        if total > MAX_BYTES:
            raise reader.wrong(place, f"unpacks to more than {MAX_BYTES:,} bytes")
        if encoding not in _DECODERS:
            raise reader.wrong(place, f"encoding {encoding[:20]!r} is not one of {', '.join(_DECODERS)}")
        fields = entry[3] if len(entry) == 4 else {}
        unpacked[name] = _DECODERS[encoding](fields, shape, dtype, reader, place)
    reader.require_empty()
    return unpacked


def to_bits(numbers_N: Tensor, bits: int) -> Bytes:
    """Numbers of `bits` bits, one after the other, the least significant bit first."""
    flat = numbers_N.detach().cpu().reshape(-1).numpy()
    single = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(single.reshape(-1), bitorder="little")


def from_bits(packed: Bytes, count: int, bits: int) -> Tensor:
    """The inverse: `count` numbers, uint8."""
    single = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy(np.packbits(single, axis=1, bitorder="little").reshape(count))


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
    width = _table_dtype(entry.left_GT.dtype)
    tables = [entry.lut_GKD] if entry.scale_O is None else [entry.lut_GKD, entry.scale_O]
    raw_tables = [_raw(table.to(width)) for table in tables]
    return _Packed(said, [to_bits(entry.indices_GN, entry.bits)], raw_tables, [_raw(entry.left_GT)])


def _said(name: str, entry: Entry, shape: tuple[int, ...], dtype: torch.dtype) -> list[Any]:
    if dtype not in _NAMES:
        raise ModelError(f"{name}: {dtype} has no place in a packed file; convert it to one of {', '.join(_DTYPES)}")
    return [entry.encoding, _NAMES[dtype], list(shape)]


def _table_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _raw(tensor: Tensor) -> Bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: Bytes = flat.view(torch.uint8).numpy()
    return raw


def _joined(pieces: list[Bytes]) -> Bytes:
    return np.concatenate([np.zeros(0, np.uint8), *pieces])


def _read(path: Path) -> tuple[Bytes, Bytes, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: no such packed file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            if set(file.keys()) != {"bits", "values"} or KEY not in metadata:
                raise ModelError(
                    f"{path}: not a packed weights file (of tensors bits and values alone); give one that is"
                )
            bits, values = file.get_tensor("bits"), file.get_tensor("values")
    except (SafetensorError, OSError) as failure:
        raise ModelError(f"{path}: not a readable safetensors file ({failure}); fetch it again") from failure
    if any(array.dtype != np.uint8 or array.ndim != 1 for array in (bits, values)):
        raise ModelError(f"{path}: bits and values are not bytes; fetch it again")
    said = parse_json(metadata[KEY].encode(), f"{path}: metadata {KEY}", ModelError)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise ModelError(f"{path}: its metadata is not that of {FORMAT}; fetch it again")
    if said.get("version") != VERSION:
        raise ModelError(f"{path}: version {str(said.get('version'))[:20]} is not {VERSION}; use a newer Buttress")
    tensors = said.get("tensors")
    if not isinstance(tensors, dict):
        raise ModelError(f"{path}: its metadata does not list tensors; fetch it again")
    return bits, values, tensors


class _Reader:
    """The two strings of bytes, taken from front to back."""

    def __init__(self, file: str, bits: Bytes, values: Bytes) -> None:
        self._file, self._left = file, {"bits": bits, "values": values}

    def take(self, kind: str, count: int, place: str) -> Bytes:
        """The next `count` bytes."""
        left = self._left[kind]
        if count > len(left):
            raise self.wrong(place, f"wants {count:,} bytes of {kind}, and {len(left):,} are left")
        self._left[kind] = left[count:]
        return left[:count]

    def numbers(self, bits: int, count: int, place: str) -> Tensor:
        """The next bit string, as uint8."""
        return from_bits(self.take("bits", (count * bits + 7) // 8, place), count, bits)

    def values(self, count: int, dtype: torch.dtype, place: str) -> Tensor:
        """The next values, flat."""
        raw = torch.from_numpy(self.take("values", count * dtype.itemsize, place).copy())
        return raw.view(dtype) if count else torch.zeros(0, dtype=dtype)  # torch views no empty tensor

    def require_empty(self) -> None:
        for kind, left in self._left.items():
            if len(left):
                raise self.wrong(kind, f"{len(left):,} bytes belong to no tensor")

    def wrong(self, place: str, what: str) -> ModelError:
        return ModelError(f"{self._file}: {place}: {what}; fetch the file again")


def _shape(shape: Any, reader: _Reader, place: str) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > _MAX_AXES:
        raise reader.wrong(place, f"its shape is not a list of at most {_MAX_AXES} sizes")
    if not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise reader.wrong(place, "its shape holds what is no size")
    return tuple(shape)


def _dtype(said: Any, reader: _Reader, place: str) -> torch.dtype:
    name = str(said)
    if name not in _DTYPES:
        raise reader.wrong(place, f"dtype {name[:20]!r} is not one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _whole(fields: dict[str, Any], key: str, low: int, high: int, reader: _Reader, place: str) -> int:
    value = fields.get(key)
    if type(value) is not int or not low <= value <= high:
        raise reader.wrong(place, f"{key} is not a whole number from {low} to {high:,}")
    return value


def _plain(fields: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, reader: _Reader, place: str) -> Tensor:
    return reader.values(math.prod(shape), dtype, place).reshape(shape)


def _sparse(fields: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, reader: _Reader, place: str) -> Tensor:
    stored = reader.numbers(1, math.prod(shape), place).bool()
    tensor = torch.zeros(stored.shape, dtype=dtype)
    tensor[stored] = reader.values(int(stored.sum()), dtype, place)
    return tensor.reshape(shape)


def _affine(fields: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, reader: _Reader, place: str) -> Tensor:
    bits, scales = _whole(fields, "bits", 1, 8, reader, place), _whole(fields, "scales", 0, 2**48, reader, place)
    if scales != 1 and (not shape or scales != shape[0]):
        raise reader.wrong(place, "has neither one scale nor one for each place along axis 0")
    integers = reader.numbers(bits, math.prod(shape), place).reshape(shape).float()
    along = [-1, *[1] * (len(shape) - 1)] if scales != 1 else [1] * len(shape)
    scale, zero_point = (reader.values(scales, torch.float32, place).reshape(along) for _ in range(2))
    return ((integers - zero_point) * scale).to(dtype)


def _palette(fields: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, reader: _Reader, place: str) -> Tensor:
    bits = _whole(fields, "bits", 1, 8, reader, place)
    axis = _whole(fields, "axis", 0, len(shape) - 1, reader, place)
    groups = _whole(fields, "groups", 1, max(shape[axis], 1), reader, place)
    in_group, channels = math.prod(shape) // groups, shape[axis]
    dim = _whole(fields, "dim", 1, in_group, reader, place)
    if channels % groups:
        raise reader.wrong(place, f"{channels} places along axis {axis} do not make {groups} groups")
    if not dtype.is_floating_point:
        raise reader.wrong(place, "a palette holds floating-point numbers alone")
    rows, left = divmod(in_group, dim)
    wide = _table_dtype(dtype)
    indices_GN = reader.numbers(bits, groups * rows, place).reshape(groups, rows).long()
    lut_GKD = reader.values(groups * 2**bits * dim, wide, place).reshape(groups, 2**bits, dim)
    numbers_GX = lut_GKD.gather(1, indices_GN[..., None].expand(-1, -1, dim)).reshape(groups, rows * dim)
    if fields.get("scaled") is True:
        scale_GO = reader.values(channels, wide, place).reshape(groups, -1)
        numbers_GX = numbers_GX * scale_GO.repeat(1, -(-rows * dim // scale_GO.shape[1]))[:, : rows * dim]
    left_GT = reader.values(groups * left, dtype, place).reshape(groups, left)
    at_end = [size for place_, size in enumerate(shape) if place_ != axis] + [channels]
    whole_GX = torch.cat([numbers_GX.to(dtype), left_GT], 1)
    return (
        whole_GX.reshape(groups, -1, channels // groups).transpose(0, 1).reshape(at_end).movedim(-1, axis).contiguous()
    )


_DECODERS: Final[dict[str, Callable[..., Tensor]]] = {
    "plain": _plain,
    "palette": _palette,
    "sparse": _sparse,
    "affine": _affine,
}

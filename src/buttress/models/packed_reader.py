"""Read a packed file back into a state dict, whoever wrote it; `packed.py` says how it is laid out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from buttress.errors import ModelError
from buttress.files import parse_json
from buttress.models.packed import DTYPES, FORMAT, KEY, VERSION, Bytes, table_dtype

MAX_BYTES = 2**33  # of all unpacked tensors; more is not read
_MAX_AXES = 8


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


def from_bits(packed: Bytes, count: int, bits: int) -> Tensor:
    """The inverse: `count` numbers, uint8."""
    single = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy(np.packbits(single, axis=1, bitorder="little").reshape(count))


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
    if name not in DTYPES:
        raise reader.wrong(place, f"dtype {name[:20]!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]


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
    wide = table_dtype(dtype)
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

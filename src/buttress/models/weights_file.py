"""Weights on disk: one safetensors file whose metadata says what model it is and what input it wants.

Tied tensors are stored once; the metadata key `tied` (JSON: other name -> stored name) brings the others back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from buttress.errors import ModelError
from buttress.files import parse_json, sha256_file, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

_TIED, PACKED = "tied", "packed"  # keys of the metadata


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFile:
    """What a weights file holds: tensors by name, the text metadata, and the SHA-256 of the file's bytes."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str


def read_weights(path: Path) -> WeightsFile:
    """Read a safetensors file onto the CPU, unpacked where it is a packed one. Pickled files are refused.

    Raises: ModelError, where the file is absent, of another format or damaged.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path}: only .safetensors is read, pickled weights can run code; convert once where you trust it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'FILE.safetensors')"
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError) as failure:
        raise ModelError(f"{path}: not a readable safetensors file ({failure}); fetch it again") from failure
    if PACKED in metadata:
        from buttress.models.packed_reader import unpack

        tensors = unpack(path)
    tensors.update(_tied(metadata, tensors, path))
    return WeightsFile(path=path, tensors=tensors, metadata=metadata, sha256=sha256_file(path))


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` atomically. Equal tensors and metadata give equal bytes."""
    from safetensors.torch import save

    stored: dict[str, Tensor] = {}
    first_name: dict[tuple[object, ...], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in tensors.items():
        identity = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and identity in first_name:
            tied[name] = first_name[identity]
            continue
        first_name[identity] = name
        # A copy in plain layout: channels_last weights and slices of a larger storage cannot be stored as they are.
        stored[name] = tensor.detach().cpu().clone().contiguous()
    extra = {_TIED: json.dumps(tied, sort_keys=True)} if tied else {}
    write_atomic(path, _ordered_header(save(stored, {"format": "pt", **metadata, **extra})))


def _tied(metadata: Mapping[str, str], tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    names = parse_json(metadata.get(_TIED, "{}").encode(), f"{path}: metadata {_TIED}", ModelError)
    if not isinstance(names, dict) or not all(isinstance(name, str) and name in tensors for name in names.values()):
        raise ModelError(f"{path}: metadata {_TIED} names a tensor that is not in the file")
    return {other: tensors[name] for other, name in names.items()}


def _ordered_header(data: bytes) -> bytes:
    """The same file with its metadata keys sorted: the safetensors library writes them in an order that varies."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]

"""The probe views in the folder: `probes.safetensors`, one lossless WebP, for raw pixels would outweigh a small store.

Shapes: P probe views, side H = W pixels.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from buttress.store.damage import DamageError, read_regular
from buttress.store.tensors import map_tensors, pack_tensors

PROBES_NAME: Final = "probes.safetensors"
_MAX_BYTES = 1024 * 1024
_MAX_SIDE, _MAX_COUNT = 256, 64


def probes_bytes(probes_PHWC: NDArray[np.uint8]) -> bytes:
    """What the file holds: the views below one another, as lossless WebP in the tensor `webp`."""
    from PIL import Image

    count, height, width, _ = probes_PHWC.shape
    assert height == width <= _MAX_SIDE, f"probe views of {width} x {height}"
    assert 1 <= count <= _MAX_COUNT, f"{count} probe views"
    file = io.BytesIO()
    stacked = Image.fromarray(probes_PHWC.reshape(count * height, width, 3))
    stacked.save(file, "WEBP", lossless=True, quality=100, method=6)
    image = np.frombuffer(file.getvalue(), np.uint8)
    data, _ = pack_tensors({"webp": image}, {"views": f"{count} of {height} x {width}"})
    return data


def read_probes(folder: Path, sha256: str) -> NDArray[np.uint8]:
    """The probe views `[P, H, W, 3]`.

    Raises:
        DamageError: not the file with that SHA-256, or not of this kind.
    """
    path = folder / PROBES_NAME
    if hashlib.sha256(read_regular(path, _MAX_BYTES)).hexdigest() != sha256:
        raise DamageError(path, "file", "changed since it was written")
    image = map_tensors(path).arrays.get("webp")
    return _unpack(path, b"" if image is None else image.tobytes())


def _unpack(path: Path, data: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=["WEBP"])
        width, height = image.size
        if width > _MAX_SIDE or height > width * _MAX_COUNT or height % width or image.mode != "RGB":
            raise DamageError(path, "webp", f"an image of {width} x {height}, not probe views")
        return np.array(image).reshape(height // width, width, width, 3)
    except OSError as failure:
        raise DamageError(path, "webp", f"it holds no probe views ({failure})") from failure

"""Versions of what produced a result."""

from __future__ import annotations

import platform
from importlib.metadata import version

LIBRARIES = (
    "buttress",
    "numpy",
    "opencv-python-headless",
    "torch",
    "timm",
    "accelerate",
    "torchmetrics",
    "safetensors",
)


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that a result depends on, without importing them."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}

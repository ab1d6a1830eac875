"""A command's call as a recipe that repeats it. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def as_recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a call as a recipe: all but where it goes, and what was left to the default of none."""
    values = {
        key: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for key, value in given.items()
    }
    return {
        key.replace("_", "-"): str(value) if isinstance(value, Path) else value
        for key, value in values.items()
        if value is not None and key not in ("out", "resume", "other_settings")
    }

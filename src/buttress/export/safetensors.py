"""A run's weights as one safetensors file: packed where a method made them small, else as they are."""

from __future__ import annotations

from pathlib import Path

from buttress.errors import SettingsError
from buttress.export.subject import Subject, require_new_file, write_new_file
from buttress.models.packed import PackedSizes, packed_bytes, sizes
from buttress.runs.run import WEIGHTS

SUFFIX = ".safetensors"


def export_to_safetensors(subject: Subject, out: Path) -> PackedSizes | None:
    """Write the run's own file, or of a compressed run the packed weights of a level.

    Args:
        subject: the run, at a level.
        out: the file to make.

    Returns: what the parts of a packed file take; none of a plain run.

    Raises:
        SettingsError: `out` exists, or the level is not one of the run's, or names several points.
        ModelError: the run cannot be read.
    """
    require_new_file(out, SUFFIX)
    if not subject.run.methods:
        write_new_file(out, (subject.run.path / WEIGHTS).read_bytes())
        return None
    if subject.level is not None and len(subject.level.points) > 1:
        raise SettingsError(
            f"level {subject.level}: a weights file holds one network; use --format onnx or torch-export"
        )
    entries = subject.entries()
    data = packed_bytes(entries, {**subject.run.metadata(), **_level(subject)})
    write_new_file(out, data)
    return sizes(entries)


def _level(subject: Subject) -> dict[str, str]:
    return {} if subject.level is None else {"level": str(subject.level)}

"""A run as a file of `torch.export`, which torch alone reads and runs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from buttress.errors import ModelError
from buttress.export.agreement import require_agreement
from buttress.export.subject import Subject, require_new_file, write_new_file
from buttress.metrics.cost.onnx_runtime import root_of

SUFFIX = ".pt2"
METADATA = "metadata.json"  # among the file's extra files


def export_to_torch(subject: Subject, out: Path) -> None:
    """Write what `torch.export.load(OUT).module()` runs, for batches of any size; palettes and zeros unpacked.

    Args:
        subject: the run, at a level.
        out: the file to make.

    Raises:
        SettingsError: `out` exists, or the level is not one of the run's.
        ModelError: it cannot be exported, or gives other logits when read again. Then there is no file.
    """
    require_new_file(out, SUFFIX)
    loaded = subject.load()
    try:
        data = program(loaded.module, loaded.preprocessing.size, subject.metadata(loaded))
        again = torch.export.load(io.BytesIO(data)).module()
    except (RuntimeError, ValueError) as failure:  # all of torch.export's are
        raise ModelError(f"{loaded.uri}: torch.export fails ({root_of(failure)})") from failure
    require_agreement(loaded.module, again, loaded.preprocessing.size, "torch.export", subject.tolerance)
    write_new_file(out, data)


def program(module: nn.Module, size: int, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a .pt2 file.

    Args:
        module: a plain network, on the CPU; left in evaluation mode.
        size: of its images, in pixels.
        metadata: what `metadata.json` in it says.
    """
    images = torch.zeros(2, 3, size, size)  # one image would be taken for a constant
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        exported = torch.export.export(module.eval(), (images,), dynamic_shapes=({0: batch},), strict=False)
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # source files of this machine
    file = io.BytesIO()
    text = json.dumps(metadata, ensure_ascii=False, sort_keys=True, indent=1)
    torch.export.save(exported, file, extra_files={METADATA: text})
    return file.getvalue()

"""`buttress export`: a finished run, written for those who have no buttress."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def export(
    run: str,
    *,
    out: Path,
    format: Literal["timm", "onnx", "torch-export", "safetensors"] = "timm",
    level: str | None = None,
) -> None:
    """Write a run for others: as a folder that timm reads, as a graph for other runtimes, or as packed weights.

    timm: a folder with a model card, ready for the Hugging Face hub; read it by
    timm.create_model("local-dir:FOLDER", pretrained=True). onnx: a file *.onnx, palettes packed inside, checked against
    the run in ONNX Runtime. torch-export: a file *.pt2, for torch.export.load. safetensors: the weights alone, of a
    compressed run packed into few bytes. A compressed run has no timm folder, for timm lacks its layers.

    Args:
        run: a run folder, run:DIR, or run:DIR@LEVEL.
        out: the folder or file to make.
        format: what to make.
        level: of an elastic run: keep=0.25, width=0.5, bits=4, at=0.5, or at=0+1 for the mean of two networks.
    """
    from buttress.export.subject import Subject
    from buttress.terminal import note

    subject = Subject.of(run, level)
    if format == "timm":
        from buttress.export.timm_folder import export_to_timm

        export_to_timm(subject.run, out)
        note(f'{out}: read it by timm.create_model("local-dir:{out}", pretrained=True); its card is {out}/README.md')
        return
    parts = ""
    if format == "onnx":
        from buttress.export.onnx import export_to_onnx

        export_to_onnx(subject, out)
    elif format == "torch-export":
        from buttress.export.torch_export import export_to_torch

        export_to_torch(subject, out)
    else:
        from buttress.export.safetensors import export_to_safetensors

        if (sizes := export_to_safetensors(subject, out)) is not None:
            named = {"bits": sizes.indices, "palettes": sizes.palettes, "stored as they are": sizes.unclustered}
            parts = ", of it " + ", ".join(f"{name} {size / 1e6:.3f}" for name, size in named.items() if size)
    note(f"{out}: {out.stat().st_size / 1e6:.3f} MB{parts} (MB = 1e6 bytes)")

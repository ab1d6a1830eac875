"""`buttress export`: a finished run, written for those who have no buttress."""

from __future__ import annotations

from pathlib import Path


def export(run: str, *, out: Path) -> None:
    """Write a run as a folder that timm reads, with a model card, ready for the Hugging Face hub.

    Read it by timm.create_model("local-dir:FOLDER", pretrained=True); upload it by
    `hf upload USER/NAME FOLDER`, and then read it by timm.create_model("hf-hub:USER/NAME", pretrained=True).

    Args:
        run: a run folder, or run:DIR.
        out: the folder to make.
    """
    from buttress.export.timm_folder import export_to_timm
    from buttress.runs.resolve import resolve_run
    from buttress.terminal import note

    export_to_timm(resolve_run(run), out)
    note(f'{out}: read it by timm.create_model("local-dir:{out}", pretrained=True); its card is {out}/README.md')

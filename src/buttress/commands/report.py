"""`buttress report`: how do models compare?"""

from __future__ import annotations

from os.path import realpath
from pathlib import Path


def report(run_or_json: str | list[str], *, out: Path = Path("report.html")) -> None:
    """Compare models on one self-contained HTML page, from what `buttress evaluate` and their trainings recorded.

    The first is the baseline: the others' figures are also told as differences from its. Nothing is measured anew.
    What cannot be read is left out with a warning, and named on the page.

    Args:
        run_or_json: run folders, run:DIR, or JSON files of `buttress evaluate --out`; any number of them.
        out: the HTML file.
    """
    from buttress.errors import SettingsError
    from buttress.files import require_writable
    from buttress.pages.entry import read_entries
    from buttress.pages.report import write_report
    from buttress.pages.templates import require_libraries
    from buttress.runs.run import CARD
    from buttress.terminal import note, number, warn

    places = [run_or_json] if isinstance(run_or_json, str) else list(run_or_json)
    require_libraries()
    require_writable(out)
    if realpath(out) in map(realpath, places) or (out.exists() and (out.parent / CARD).is_file()):
        raise SettingsError(f"--out {out}: is one of the files to be shown, or of a run; name another")
    selection = read_entries(places)
    for fault in selection.faults:
        warn(fault)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_report(selection, out)
    note(f"{out}: {number(len(selection.entries), 'model')}")

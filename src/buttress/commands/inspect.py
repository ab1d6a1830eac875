"""`buttress inspect`: what does a reinforcement say about the data set itself?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from buttress.metrics.health import Health

FORMAT, VERSION = "buttress-inspect", 1
SHOWN = 10  # rows of a list at the terminal
_OWN_LABELS = (
    "the teacher is a run: labels that it was itself trained on it may have learnt by heart, wrong ones too, and those "
    "are not found; judge by a teacher that has not seen them"
)


def inspect(
    reinforcement: Path,
    *,
    source: str,
    top: int = 50,
    samples: int = 1000,
    near_duplicates: bool = True,
    json: Path | None = None,
    out: Path | None = None,
) -> None:
    """List likely label errors, duplicates, and the hardest and most ambiguous samples of a reinforced data set.

    Reads what is stored and the images; the teacher is not needed.

    Args:
        reinforcement: the folder.
        source: the images with the labels to judge, e.g. folder:photos/train.
        top: entries of each list; labels that are likelier wrong than right are all listed.
        samples: shown on the page, likeliest wrong labels first; those that stand in a list are shown too.
        near_duplicates: look for the same picture in other files too, which decodes every image.
        json: file for the lists in full.
        out: HTML page to browse the samples, their views and what the teacher said of each.
    """
    _check(top, samples, out)
    from buttress.files import require_writable, write_json
    from buttress.metrics.health import examine
    from buttress.pages.views import write_views_page
    from buttress.sources import open_source
    from buttress.store.reader import open_reinforcement

    for flag, path in (("--json", json), ("--out", out)):
        if path is None:
            continue
        require_writable(path, flag)
        path.parent.mkdir(parents=True, exist_ok=True)  # the lists must not be lost for want of a folder
    health = examine(open_source(source), open_reinforcement(reinforcement))
    document = _document(health, top, near_duplicates)
    _print(document, health)
    if json is not None:
        write_json(json, document)
    if out is not None:
        write_views_page(document, health, top, samples, out)


def _check(top: int, samples: int, out: Path | None) -> None:
    from buttress.errors import SettingsError
    from buttress.pages.views import require_libraries

    if top < 1:
        raise SettingsError(f"--top {top}: at least 1 entry per list")
    if samples < 1:
        raise SettingsError(f"--samples {samples}: at least 1 sample on the page")
    if out is not None:
        require_libraries()


def _document(health: Health, top: int, near: bool) -> dict[str, Any]:
    """The lists, and what they were made from."""
    from buttress.sources import fingerprint
    from buttress.versions import library_versions

    store, source, noise = health.store, health.source, health.noise
    labels = {
        "judged": len(health.labelled),
        "flagged": health.flagged,
        "wrong_share": None if noise is None else noise.share,
        "temperature": None if noise is None else noise.temperature,
        "not_judged_because": health.unjudged,
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "reinforcement": {
            "path": str(store.path),
            "views": store.views,
            "teachers": [str(teacher["uri"]) for teacher in store.card.teachers],
        },
        "source": {"uri": source.uri, "fingerprint": fingerprint(source), "count": len(source)},
        "judged": len(health.places),
        "unknown": int((health.coverage.rows < 0).sum()),
        "views": {"judged": health.views, "mixed": health.mixed},
        "only_mixed": [source.ids[place] for place in health.only_mixed.tolist()],
        "labels": labels,
        "label_errors": health.label_errors(top),
        "duplicates": health.duplicates(),
        "near_duplicates": health.near_duplicates() if near else None,
        "hardest": health.hardest(top),
        "ambiguous": health.ambiguous(top),
        "versions": library_versions(),
    }


def _print(document: dict[str, Any], health: Health) -> None:
    from buttress.terminal import note, number

    labels, views = document["labels"], document["reinforcement"]["views"]
    print(f"{document['judged']:,} of {number(document['source']['count'], 'sample')}, {number(views, 'view')} each")
    if document["unknown"]:
        _print_unknown(health)
    _print_mixed(document["views"], document["only_mixed"])
    if labels["not_judged_because"]:
        print(f"\nlabel errors: not judged, for {labels['not_judged_because']}")
    else:
        print(
            f"\nlabel errors: {labels['flagged']:,} of {labels['judged']:,} labels are likelier wrong than right",
            end="",
        )
        print(f" (estimated to be wrong: {labels['wrong_share']:.1%})")
        _print_samples([entry for entry in document["label_errors"] if entry["flagged"]], "suggested", "P(wrong)")
    _print_groups("the very same file", document["duplicates"])
    if document["near_duplicates"] is not None:
        _print_groups("the same picture in two files", document["near_duplicates"])
    if document["hardest"]:
        print("\nhardest: labels that are likely right, and that the teacher finds least likely")
        _print_samples(document["hardest"], "teacher", "P(label)")
    print("\nmost ambiguous: the teacher cannot decide")
    _print_samples(document["ambiguous"], "teacher", "nat")
    if any(teacher.startswith("run:") for teacher in document["reinforcement"]["teachers"]) and labels["judged"]:
        note(_OWN_LABELS)


def _print_unknown(health: Health) -> None:
    """How many samples the store does not know, and whether they only have other names there."""
    from buttress.terminal import number

    renamed, unknown = health.coverage.renamed, int((health.coverage.rows < 0).sum())
    why = "" if renamed is None else f": {renamed}"
    print(f"{number(unknown, 'sample')} not in {health.store.path}{why}")


def _print_mixed(views: dict[str, int], only_mixed: list[str]) -> None:
    """How many views were left out because they are mixed, and whom that leaves with none."""
    from buttress.terminal import number

    if views["mixed"]:
        every = views["judged"] + views["mixed"]
        print(f"{views['mixed']:,} of {every:,} views are mixed with another image: the others are judged")
    if only_mixed:
        print(f"{number(len(only_mixed), 'sample')} without any other view, so not judged (e.g. {only_mixed[0]})")


def _print_samples(entries: list[dict[str, Any]], suggested: str, score: str) -> None:
    cells = [
        [entry["id"], entry["label"] or "-", entry["suggested"] or "-", f"{entry['score']:.4f}"]
        for entry in entries[:SHOWN]
    ]
    _print_columns([["id", "label", suggested, score], *cells] if cells else [], len(entries))


def _print_groups(what: str, groups: list[dict[str, Any]]) -> None:
    from buttress.terminal import number

    apart = sum(not group["same_label"] for group in groups)
    print(f"\n{what}: {number(len(groups), 'group')}, {apart:,} of them under different labels")
    cells = [
        [", ".join(group["ids"]), ", ".join(dict.fromkeys(label or "-" for label in group["labels"]))]
        for group in sorted(groups, key=lambda group: group["same_label"])[:SHOWN]
    ]
    _print_columns(cells, len(groups))


def _print_columns(rows: list[list[str]], count: int) -> None:
    """Rows with their columns one below the other, and how many more there are."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if count > SHOWN:
        print(f"  ... {count - SHOWN:,} more (--json FILE, --out PAGE.html)")

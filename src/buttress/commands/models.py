"""`buttress models`: which models are there, and how are they named?"""

from __future__ import annotations

import sys

URIS = {
    "timm:NAME": "a random start, to be trained; the name without a tag",
    "timm:NAME.TAG": "with the weights of that tag, downloaded when first used",
    "timm:NAME@FILE.safetensors": "with weights on your disk",
    "run:DIR": "a model that buttress train made; the folder alone will do",
    "python:pkg.mod:func": "any function from uint8 views to probabilities; as a teacher only",
}


def models(filter: str | None = None, *, json: bool = False) -> None:
    """List the models that can be trained or teach, and the ways to name one.

    Columns: name, classes of its head (0 = features only), input size in pixels, licence of the weights (- = it has
    none). Into a pipe they go without a heading, with tabs between.

    Args:
        filter: a glob, e.g. 'mobilenetv3*' or '*.in12k*', for the name with or without the tag of the weights.
        json: print JSON.
    """
    from dataclasses import asdict
    from json import dumps

    from buttress.models.catalogue import find_models

    entries = find_models((filter or "*").removeprefix("timm:"))
    if json:
        print(dumps({"models": [asdict(entry) for entry in entries], "uris": URIS}, indent=1))
        return
    rows = [(entry.name, str(entry.classes), entry.size, entry.licence) for entry in entries]
    if not sys.stdout.isatty():
        print("\n".join(map("\t".join, rows)))
        return
    rows = [("NAME", "CLASSES", "SIZE", "LICENCE"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\n{len(entries):,} models. How to name one:")
    for form, what in URIS.items():
        print(f"  {form:<28}{what}")

"""`buttress recipes`: which trainings are shipped, ready to run?"""

from __future__ import annotations


def recipes(name: str | None = None) -> None:
    """List the recipes that are shipped, or print one.

    Run one by `buttress train --recipe NAME --out DIR`; a flag given beside it overrides the recipe's.

    Args:
        name: the recipe to print; NAME.smoke is its twin of seconds.
    """
    from buttress.recipes.shipped import read_header, shipped_names, shipped_path

    if name is not None:
        print(shipped_path(name).read_text(encoding="utf-8"), end="")
        return
    for each in shipped_names():
        header = read_header(shipped_path(each))
        print(f"{each}: {header.title}")
        minutes = "minutes not measured" if header.minutes is None else f"{header.minutes:g} min"
        print(f"  {minutes} on {header.hardware}")
        print(f"  {header.expected}")
        for line in (*header.before, header.command):
            print(f"  {line}")

"""The nearest known name to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean --views?` for the nearest known names, all where several are as near; empty where none is near.

    Dashes and underscores count as the same letter. Near is within half of the name's letters.
    """
    distances = {candidate: _distance(name.replace("-", "_"), candidate.replace("-", "_")) for candidate in known}
    smallest = min(distances.values(), default=len(name))
    if smallest > max(1, len(name.strip("-")) // 2):
        return ""
    return "; did you mean " + " or ".join(c for c, distance in distances.items() if distance == smallest) + "?"


def _distance(one: str, other: str) -> int:
    """Levenshtein's number of edits, a swap of neighbours counting as one."""
    before, row = [0] * (len(other) + 1), list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, above, row = row, before, [i]
        for j, right in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == other[j - 2] and one[i - 2] == right:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]

"""The nearest known names to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, count: int | None = None) -> str:
    """`; did you mean --views?` for the `nearest` of the known names; empty where none is near."""
    near = nearest(name, known, count=count)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def nearest(name: str, known: Iterable[str], *, count: int | None = None) -> list[str]:
    """The known names nearest to `name`, the nearest first. Near is within half of the name's letters.

    Dashes and underscores count as the same letter.

    Args:
        name: what somebody wrote.
        known: what there is.
        count: how many at most; none = all that are as near as the nearest.
    """
    limit = max(1, len(name.strip("-")) // 2)
    # Lengths that are too far apart decide alone: some lists are thousands of names long.
    likely = [candidate for candidate in known if abs(len(candidate) - len(name)) <= limit]
    distances = {candidate: _distance(name.replace("-", "_"), candidate.replace("-", "_")) for candidate in likely}
    near = sorted((one for one in distances if distances[one] <= limit), key=distances.__getitem__)
    if count is not None:
        return near[:count]
    return [one for one in near if distances[one] == distances[near[0]]]


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

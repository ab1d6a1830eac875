"""What is to be labelled, cut into parts (the unit of storage) and blocks (the unit of work). Pure arithmetic.

A block is a rectangle rows x views inside one part. How blocks are cut follows from the settings alone, never from
timing, so any number of workers in any order makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from buttress.store.part import MAX_ROWS, part_name

ROWS_PER_PART = MAX_ROWS
BYTES_PER_PART = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Rectangle:
    """Rows `[first_row, stop_row)` times views `[first_view, stop_view)`."""

    first_row: int
    stop_row: int
    first_view: int
    stop_view: int

    @property
    def rows(self) -> int:
        return self.stop_row - self.first_row

    @property
    def views(self) -> int:
        return self.stop_view - self.first_view

    @property
    def size(self) -> int:
        """How many views the rectangle holds."""
        return self.rows * self.views


@dataclass(frozen=True, slots=True)
class PartPlan:
    """One part to be written: its rectangle and the ordinal of its block of rows."""

    row_block: int
    area: Rectangle

    @property
    def name(self) -> str:
        return part_name(self.row_block, self.area.first_view)


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of work: a rectangle of one part."""

    part: str
    number: int
    area: Rectangle


def row_spans(there: Sequence[tuple[int, int]], rows: int) -> list[tuple[int, int]]:
    """Blocks of rows `[start, stop)`: those of a finished reinforcement as they are, then cuts of at most 65,536."""
    spans = list(there)
    row = spans[-1][1] if spans else 0
    while row < rows:
        spans.append((row, min(row + ROWS_PER_PART, rows)))
        row = spans[-1][1]
    return spans


def missing_parts(
    spans: Sequence[tuple[int, int]], existing: Sequence[tuple[int, Rectangle]], views: int, stride: int
) -> list[PartPlan]:
    """Parts that are needed so that `existing` (row block, rectangle) and they cover every span in all `views`.

    Existing parts are never touched: more views come as further view ranges of the row blocks that exist.
    """
    covered: dict[int, set[int]] = {block: set() for block in range(len(spans))}
    for block, area in existing:
        covered[block].update(range(area.first_view, area.stop_view))
    return [
        PartPlan(block, Rectangle(*span, first, stop))
        for block, span in enumerate(spans)
        for first, stop in _view_ranges(covered[block], views, span[1] - span[0], stride)
    ]


def _view_ranges(covered: set[int], views: int, rows: int, stride: int) -> Iterator[tuple[int, int]]:
    longest = max(1, BYTES_PER_PART // (rows * stride))
    first = 0
    while first < views:
        if first in covered:
            first += 1
            continue
        stop = first + 1
        while stop < views and stop not in covered and stop - first < longest:
            stop += 1
        yield first, stop
        first = stop


def blocks_of(part: PartPlan, views_per_block: int) -> list[Block]:
    """Cut a part into blocks of at most `views_per_block` views; all the views of a row in one block where they fit."""
    area = part.area
    rows = max(1, views_per_block // area.views)
    cuts = [
        Rectangle(
            first, min(first + rows, area.stop_row), first_view, min(first_view + views_per_block, area.stop_view)
        )
        for first in range(area.first_row, area.stop_row, rows)
        for first_view in range(area.first_view, area.stop_view, views_per_block)
    ]
    return [Block(part.name, number, cut) for number, cut in enumerate(cuts)]

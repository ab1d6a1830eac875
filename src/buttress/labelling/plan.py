"""What is to be labelled, cut into parts (the unit of storage) and blocks (the unit of work). Pure arithmetic.

A block is a rectangle rows x views inside one part. How blocks are cut follows from the settings alone, never from
timing, so any number of workers in any order makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROWS_PER_PART = 65_536
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
        return f"part-{self.row_block:05d}-v{self.area.first_view:04d}"


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of work: a rectangle of one part."""

    part: str
    number: int
    area: Rectangle


def missing_parts(existing: Sequence[tuple[int, Rectangle]], rows: int, views: int, stride: int) -> list[PartPlan]:
    """Parts that are needed so that `existing` (row block, rectangle) covers all `rows` x `views`.

    Existing parts are never touched: more views come as further view ranges of the row blocks that exist,
    more rows as further row blocks.
    """
    spans = {block: (area.first_row, area.stop_row) for block, area in existing}
    covered: dict[int, set[int]] = {block: set() for block in spans}
    for block, area in existing:
        covered[block].update(range(area.first_view, area.stop_view))
    row = max((stop for _, stop in spans.values()), default=0)
    while row < rows:
        block = len(spans)
        spans[block] = (row, min(row + ROWS_PER_PART, rows))
        covered[block] = set()
        row = spans[block][1]
    return [
        PartPlan(block, Rectangle(*spans[block], first, stop))
        for block in sorted(spans)
        for first, stop in _view_ranges(covered[block], views, spans[block][1] - spans[block][0], stride)
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

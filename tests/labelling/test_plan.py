"""How work is cut: every view exactly once, existing parts untouched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buttress.labelling import plan
from buttress.labelling.plan import PartPlan, Rectangle, blocks_of, missing_parts, row_spans


def cells(areas):
    return [(r, v) for a in areas for r in range(a.first_row, a.stop_row) for v in range(a.first_view, a.stop_view)]


@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 40))
def test_blocks_tile_their_part_exactly_once(rows, views, per_block):
    part = PartPlan(3, Rectangle(5, 5 + rows, 2, 2 + views))
    blocks = blocks_of(part, per_block)
    assert sorted(cells(b.area for b in blocks)) == cells([part.area])
    assert all(b.area.size <= per_block for b in blocks)
    assert [b.number for b in blocks] == list(range(len(blocks)))


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=4))
def test_any_history_of_growth_covers_everything_and_touches_nothing(steps):
    existing: list[tuple[int, Rectangle]] = []
    spans: list[tuple[int, int]] = []
    rows = views = 0
    for more_rows, more_views in steps:
        rows, views = rows + more_rows, views + more_views
        spans = row_spans(spans, rows)
        fresh = missing_parts(spans, existing, views, stride=23)
        assert not {(p.row_block, p.area.first_view) for p in fresh} & {(b, a.first_view) for b, a in existing}
        existing += [(p.row_block, p.area) for p in fresh]
        assert sorted(cells(a for _, a in existing)) == cells([Rectangle(0, rows, 0, views)])
    assert missing_parts(spans, existing, views, stride=23) == []


def test_parts_respect_the_limits_on_rows_and_bytes(monkeypatch):
    monkeypatch.setattr(plan, "ROWS_PER_PART", 10)
    monkeypatch.setattr(plan, "BYTES_PER_PART", 10 * 23 * 3)
    parts = missing_parts(row_spans([], 25), [], 7, stride=23)
    assert {p.area.rows for p in parts} == {10, 5}
    assert all(p.area.size * 23 <= 10 * 23 * 3 for p in parts)
    assert [p.name for p in parts[:3]] == ["part-00000-v0000", "part-00000-v0003", "part-00000-v0006"]

"""Which views can be drawn from a source, told from the words alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buttress.errors import StoreError
from buttress.sources import ArraySource, id_hash
from buttress.store.partners import Partners
from buttress.store.reader import open_reinforcement
from buttress.views.draw import Drawer
from buttress.views.presets import preset

from . import small_store
from .small_store import Plan

ROWS, VIEWS, BAD = 12, 5, 7
NAMES = tuple(f"image {row}" for row in range(ROWS))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(small_store, "POLICY", preset("mix"))
    plan = Plan(ROWS, VIEWS, bad=(BAD,))
    plan.id_hashes = np.array([id_hash(name) for name in NAMES], np.uint64)
    return open_reinforcement(plan.write(tmp_path / "plus"))


def source_of(rows):
    pixels = np.arange(len(rows), dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    return ArraySource(pixels, [0] * len(rows), ids=[NAMES[row] for row in rows], classes=("a",))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.permutations(range(ROWS)), count=st.integers(1, ROWS))
def test_a_view_can_be_drawn_where_its_partner_is_here_and_whole(store, rows, count):
    rows = rows[:count]
    partners = Partners(source_of(rows), store, np.array(rows))
    drawer = Drawer(preset("mix"), 5, ROWS)
    assert not partners.complete  # one image could not be decoded
    for sample_hash in map(id_hash, NAMES):
        mixes = [drawer.mix(sample_hash, view) for view in range(VIEWS)]
        here = [mix is None or (mix.partner in rows and mix.partner != BAD) for mix in mixes]
        assert [partners.drawable(sample_hash, view) for view in range(VIEWS)] == here
        for view in range(VIEWS):
            after = [number % VIEWS for number in range(view, view + VIEWS) if here[number % VIEWS]]
            assert partners.next_view(sample_hash, view) == (after[0] if after else None)
    for row in set(rows) - {BAD}:
        data, sample_hash = partners.picture(row)
        assert (int(np.asarray(data)[0, 0, 0]), sample_hash) == (rows.index(row), id_hash(NAMES[row]))


def test_where_nothing_is_mixed_every_view_can_be_drawn(tmp_path):
    store = open_reinforcement(Plan(ROWS, VIEWS, bad=(BAD,)).write(tmp_path / "plain"))
    partners = Partners(source_of([3]), store, np.array([3]))
    assert partners.complete
    assert [partners.next_view(99, view) for view in range(VIEWS)] == list(range(VIEWS))


def test_partners_travel_to_workers(store):
    partners = Partners(source_of([3, 4]), store, np.array([3, 4]))
    copy = pickle.loads(pickle.dumps(partners))
    assert copy.index_M.tolist() == partners.index_M.tolist()
    assert [copy.next_view(8, view) for view in range(VIEWS)] == [partners.next_view(8, view) for view in range(VIEWS)]


def test_an_absent_record_is_refused_and_says_why(store):
    with pytest.raises(StoreError, match=r"row 7 has no labels, for its image, or the one that the view is mixed with"):
        store.targets(np.array([BAD]), 0)

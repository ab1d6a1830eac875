"""Teachers of two sizes and views that are mixed: one decode of each image, and records and truth of what they show."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tests.labelling.by_hand import mix_of, said_of
from tests.labelling.small_labelling import SMALL, labelled, records_of, spec_of

from buttress.errors import StoreError
from buttress.labelling.label import label_source
from buttress.labelling.rerun import rerun, teacher_of
from buttress.labelling.settings import LabelSettings
from buttress.loading.batches import ReinforcedBatches
from buttress.sources import Subset, decode
from buttress.store.verify import check_integrity
from buttress.store.writer import PartColumns, write_card, write_part
from buttress.views.presets import preset

POLICY = preset("mix")
VIEWS, BAD = 4, "green/01.png"
WEIGHTS = (3.0, 1.0)
run = partial(labelled, policy=POLICY, views=VIEWS, weights=WEIGHTS, max_bad=0.05, truth=True)


def mixed_with(source, row, view):
    return mix_of(POLICY, len(source), source.ids[row], view)


def without_partner(source, bad):
    """Rows and views, other than of row `bad`, that are mixed with it."""
    pairs = [(row, view) for row in range(24) for view in range(VIEWS) if row != bad]
    return [(row, view) for row, view in pairs if (mix := mixed_with(source, row, view)) and mix.partner == bad]


def test_records_and_truth_are_what_both_say_of_the_mixed_view_at_their_sizes(source, uris, tmp_path):
    store = run(source, uris, tmp_path / "plus", k=3)
    mixed = 0
    for row in range(24):
        view = row % VIEWS
        mixed += mixed_with(source, row, view) is not None
        said = said_of(spec_of(uris, source, WEIGHTS), POLICY, source, source.ids[row], view)
        values, ids, _ = store.targets(np.array([row]), view)
        np.testing.assert_allclose(values[0], said[ids[0]], rtol=0.05)
        assert store.truth(np.array([row]), view)[0] == pytest.approx(said[source.labels[row]], rel=0.03)
    assert 6 < mixed < 24


def test_R16_a_view_without_its_partner_has_neither_record_nor_truth(source, photos, uris, tmp_path):
    (photos / BAD).write_bytes(b"not an image")
    store, bad = run(source, uris, tmp_path / "plus"), source.ids.index(BAD)
    lost = without_partner(source, bad)
    assert len(lost) >= 2
    (entry,) = store.card.parts
    for row in range(24):
        for view in range(VIEWS):
            absent = row == bad or (row, view) in lost
            assert store.records(np.array([row]), view).any() != absent
            assert (store.part(entry).numbers("truth", view)[row] == 0) == absent
    for row, view in lost:
        for read in (store.targets, store.truth):
            with pytest.raises(StoreError, match=f"row {row} has no labels, for its image, or the one that the view"):
                read(np.array([row]), view)
    assert check_integrity(tmp_path / "plus").whole


def test_a_truth_beside_an_absent_record_is_found(source, photos, uris, tmp_path):
    (photos / BAD).write_bytes(b"not an image")
    store = run(source, uris, tmp_path / "plus")
    (entry,) = store.card.parts
    part, (row, view) = store.part(entry), without_partner(source, source.ids.index(BAD))[0]
    truth_VN = np.stack([part.numbers("truth", number) for number in range(VIEWS)])
    truth_VN[view, row] = 9
    written = write_part(
        store.path,
        row_block=0,
        first_row=0,
        first_view=0,
        labels_VNS=records_of(store),
        columns=PartColumns(**{name: part.column(name) for name in ("id_hashes", "hard_labels", "content_hashes")}),
        settings_digest=store.card.settings_digest,
        truth_VN=truth_VN,
    )
    write_card(store.path, replace(store.card, parts=(written,)))
    (problem,) = check_integrity(store.path).problems
    assert (problem.place, problem.what) == (
        f"truth of view {view}, row {row}",
        "the row has a truth, but no record or no hard label",
    )


def test_the_own_image_and_each_partner_are_decoded_once_for_all_sizes(source, uris, tmp_path, monkeypatch):
    decodes = 0

    def counted(data):
        nonlocal decodes
        decodes += 1
        return decode(data)

    monkeypatch.setattr("buttress.labelling.row_images.decode", counted)
    run(source, uris, tmp_path / "plus", views_per_block=24 * VIEWS)
    mixed = sum(mixed_with(source, row, view) is not None for row in range(24) for view in range(VIEWS))
    assert decodes == 24 + mixed


def test_the_teachers_say_the_same_again_of_views_that_can_be_drawn(source, photos, uris, tmp_path):
    (photos / BAD).write_bytes(b"not an image")
    store = run(source, uris, tmp_path / "plus")
    teacher = teacher_of(store).open()
    again = rerun(source, store, np.arange(24), teacher, 96)
    assert (again.views, again.largest < 0.02) == (23 * VIEWS, True)
    part = rerun(Subset(source, range(0, 24, 3)), store, np.arange(0, 24, 3), teacher, 32)
    assert (20 < part.views <= 32, part.largest < 0.02) == (True, True)


def test_training_on_some_of_the_images_gets_the_truth_of_the_views_that_it_shows(source, uris, tmp_path):
    """A sample whose partner is away takes another view: record and truth are of that one, and none of a mixed one."""
    store = run(source, uris, tmp_path / "plus")
    rows = list(range(0, 24, 2))
    batches = ReinforcedBatches(Subset(source, rows), store, size=16, p=1.0, truth=True)
    told = 0
    for epoch in range(VIEWS):
        batch = batches.batch(range(12), epoch)
        assert batch.truth_B is not None and batch.values_BK is not None
        told_B = (batch.own_share_B == 1) & (batch.values_BK[:, 0] < 1)  # not mixed, and no hard label
        np.testing.assert_array_equal(np.isnan(batch.truth_B), ~told_B)
        for place in np.flatnonzero(told_B).tolist():
            row = rows[place]
            views = [view for view in range(VIEWS) if mixed_with(source, row, view) is None]
            values = [store.targets(np.array([row]), view)[0][0] for view in views]
            (taken,) = (
                view for view, value in zip(views, values, strict=True) if (value == batch.values_BK[place]).all()
            )
            assert batch.truth_B[place] == store.truth(np.array([row]), taken)[0]
            told += 1
    assert told > 8


def test_a_dry_run_draws_mixed_views_at_every_size(source, photos, uris, tmp_path, capsys):
    (photos / BAD).write_bytes(b"not an image")
    settings = LabelSettings(**{**SMALL, "views": 8, "max_bad": 0.05, "truth": True})
    label_source(source, spec_of(uris, source, WEIGHTS), POLICY, settings, tmp_path / "plus", dry_run=True)
    assert "192 views are missing" in (out := capsys.readouterr().out)
    assert "24 and 16 pixels" in out

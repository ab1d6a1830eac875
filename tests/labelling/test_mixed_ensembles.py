"""Teachers of two sizes and views that are mixed: one decode of each image, and records and truth of what they show."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from buttress.errors import StoreError
from buttress.labelling.label import label_source
from buttress.labelling.rerun import rerun, teacher_of
from buttress.labelling.settings import LabelSettings
from buttress.loading.batches import ReinforcedBatches
from buttress.sources import Subset, decode, id_hash, open_source
from buttress.store.reader import open_reinforcement
from buttress.store.verify import check_integrity
from buttress.store.writer import PartColumns, write_card, write_part
from buttress.teachers import EnsembleSpec, TeacherSpec
from buttress.views.presets import preset
from buttress.views.render import Renderer

POLICY = preset("mix")
VIEWS, BAD = 4, "green/01.png"
SIZES = (24, 16)
SMALL: dict[str, Any] = {
    "views": VIEWS,
    "k": 2,
    "batch": 5,
    "views_per_block": 12,
    "workers": 0,
    "max_bad": 0.05,
    "truth": True,
}
NARROW = """
import numpy as np

def look(views_BHWC):
    assert views_BHWC.shape[1:] == (16, 16, 3)
    corner_BC = views_BHWC[:, :8, :8, ::-1].reshape(len(views_BHWC), -1, 3).mean(axis=1) + 1
    return corner_BC / corner_BC.sum(axis=1, keepdims=True)

look.size, look.classes = 16, ("blue", "green", "red")
"""


@pytest.fixture
def source(photos):
    return open_source(f"folder:{photos}")


@pytest.fixture
def uris(colour_teacher):
    """A teacher of 24 pixels and one of 16."""
    (Path(os.environ["PYTHONPATH"]) / "narrow_teacher.py").write_text(NARROW)
    return [colour_teacher, "python:narrow_teacher:look"]


def spec_of(uris, source):
    members = tuple(TeacherSpec(uri=uri, source_classes=source.classes) for uri in uris)
    return EnsembleSpec(members=members, weights=(3.0, 1.0))


def run(source, uris, out, **settings):
    label_source(source, spec_of(uris, source), POLICY, LabelSettings(**{**SMALL, **settings}), out)
    return open_reinforcement(out)


def mix_of(source, row, view):
    return Renderer(POLICY, 0, len(source)).mix(id_hash(source.ids[row]), view)


def said_by_hand(source, uris, row, view):
    """What the two say of a view, each at its size: the weighted mean `[C]`."""

    def picture(row):
        sample = source[row]
        return sample.data, id_hash(sample.id)

    renderer, (data, name) = Renderer(POLICY, 0, len(source)), picture(row)
    answers = [
        member.open().probabilities(renderer.views(data, name, [view], size, picture))[0].astype(float)
        for member, size in zip(spec_of(uris, source).members, SIZES, strict=True)
    ]
    return 0.75 * answers[0] + 0.25 * answers[1]


def without_partner(source, bad):
    """Rows and views, other than of row `bad`, that are mixed with it."""
    pairs = [(row, view) for row in range(24) for view in range(VIEWS) if row != bad]
    return [pair for pair in pairs if (mix := mix_of(source, *pair)) is not None and mix.partner == bad]


def test_R9_the_bytes_are_the_same_for_0_and_2_workers(source, photos, uris, tmp_path):
    (photos / BAD).write_bytes(b"not an image")
    for workers in (0, 2):
        run(source, uris, tmp_path / f"plus-{workers}", workers=workers)
    files = [{path.name: path.read_bytes() for path in (tmp_path / f"plus-{n}").iterdir()} for n in (0, 2)]
    assert files[0] == files[1]
    assert check_integrity(tmp_path / "plus-0").whole


def test_records_and_truth_are_what_both_say_of_the_mixed_view_at_their_sizes(source, uris, tmp_path):
    store = run(source, uris, tmp_path / "plus", k=3)
    mixed = 0
    for row in range(24):
        view = row % VIEWS
        mixed += mix_of(source, row, view) is not None
        said = said_by_hand(source, uris, row, view)
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
        labels_VNS=np.stack([store.records(np.arange(24), number) for number in range(VIEWS)]),
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
    mixed = sum(mix_of(source, row, view) is not None for row in range(24) for view in range(VIEWS))
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
            views = [view for view in range(VIEWS) if mix_of(source, row, view) is None]
            values = [store.targets(np.array([row]), view)[0][0] for view in views]
            (taken,) = (
                view for view, value in zip(views, values, strict=True) if (value == batch.values_BK[place]).all()
            )
            assert batch.truth_B[place] == store.truth(np.array([row]), taken)[0]
            told += 1
    assert told > 8


def test_a_dry_run_draws_mixed_views_at_every_size(source, photos, uris, tmp_path, capsys):
    (photos / BAD).write_bytes(b"not an image")
    settings = LabelSettings(**{**SMALL, "views": 8})
    label_source(source, spec_of(uris, source), POLICY, settings, tmp_path / "plus", dry_run=True)
    assert "192 views are missing" in (out := capsys.readouterr().out)
    assert "24 and 16 pixels" in out

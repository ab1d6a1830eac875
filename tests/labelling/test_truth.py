"""Labelling with `--truth`: the probability of each sample's own class is stored, and right in a store that grows."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.labelling.by_hand import said_of
from tests.labelling.small_labelling import bytes_of, cut_off, labelled, parts_of, records_of, spec_of

from buttress.cli import main
from buttress.errors import LabellingError
from buttress.labelling import label
from buttress.sources import Relabelled, Subset, open_source
from buttress.store.part import Part, read_part_info
from buttress.store.verify import check_integrity
from buttress.views.presets import preset

POLICY = preset("randaug")
run = partial(labelled, policy=POLICY, k=1, truth=True)


@pytest.fixture
def partly(source):
    """The same images, every third without a label."""
    return Relabelled(source, np.where(np.arange(24) % 3 == 1, -1, source.labels))


def test_the_store_knows_what_the_teacher_thinks_of_each_label(partly, colour_teacher, tmp_path):
    store = run(partly, colour_teacher, tmp_path / "plus")
    away_from_top = 0
    for view in range(4):
        truth = store.truth(np.arange(24), view)
        np.testing.assert_array_equal(np.isnan(truth), partly.labels < 0)
        for row in np.flatnonzero(partly.labels >= 0).tolist():
            probabilities = said_of(spec_of(colour_teacher, partly), POLICY, partly, partly.ids[row], view)
            assert truth[row] == pytest.approx(max(probabilities[partly.labels[row]], 1e-6), rel=0.028)
            away_from_top += probabilities.argmax() != partly.labels[row]
    assert away_from_top > 0, "with k = 1 these are not in the records"
    assert check_integrity(tmp_path / "plus").whole


def test_the_records_are_those_of_a_store_without(source, colour_teacher, tmp_path):
    stored = run(source, colour_teacher, tmp_path / "with")
    plain = run(source, colour_teacher, tmp_path / "without", truth=False)
    np.testing.assert_array_equal(records_of(stored), records_of(plain))
    assert [field.name for field in plain.card.fields] == ["labels", "hard_labels"]
    assert stored.card.settings_digest != plain.card.settings_digest


def test_a_store_that_grows_keeps_its_fields(source, colour_teacher, tmp_path):
    out = tmp_path / "plus"
    run(Subset(source, range(0, 24, 2)), colour_teacher, out)
    there = parts_of(out)
    grown = run(source, colour_teacher, out, views=6)
    assert there.items() <= parts_of(out).items()
    fresh = run(source, colour_teacher, tmp_path / "fresh", views=6)
    rows = grown.rows_of(fresh.id_hashes)
    for view in range(6):
        np.testing.assert_array_equal(grown.truth(rows, view), fresh.truth(np.arange(24), view))
    assert check_integrity(out).whole


def test_other_fields_than_those_of_the_store_are_refused(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "with")
    with pytest.raises(LabellingError, match=r"other settings \(truth differ\)"):
        run(source, colour_teacher, tmp_path / "with", views=6, truth=False)
    run(source, colour_teacher, tmp_path / "without", truth=False)
    with pytest.raises(LabellingError, match=r"other settings \(truth differ\)"):
        run(source, colour_teacher, tmp_path / "without", views=6)


def test_what_is_added_tells_of_the_class_that_is_stored(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "plus")
    changed = Relabelled(source, (source.labels + 1) % 3)
    grown = run(changed, colour_teacher, tmp_path / "plus", views=6)
    fresh = run(source, colour_teacher, tmp_path / "fresh", views=6)
    assert grown.hard_labels.tolist() == source.labels.tolist()
    np.testing.assert_array_equal(grown.truth(np.arange(24), 5), fresh.truth(np.arange(24), 5))


def test_blocks_made_under_other_labels_are_made_again(source, colour_teacher, tmp_path):
    with cut_off("_assemble", of=label._Labelling):
        run(source, colour_teacher, tmp_path / "cut")
    changed = Relabelled(source, (source.labels + 1) % 3)
    run(changed, colour_teacher, tmp_path / "cut")
    run(changed, colour_teacher, tmp_path / "whole")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_an_image_that_cannot_be_decoded_has_no_truth(source, photos, colour_teacher, tmp_path):
    (photos / "green" / "01.png").write_bytes(b"not an image")
    store = run(source, colour_teacher, tmp_path / "plus", max_bad=0.1)
    (bad,) = store.absent_rows.tolist()
    part = Part(store.path, "part-00000-v0000", read_part_info(store.path, "part-00000-v0000")[0])
    assert part.numbers("truth", 2)[bad] == 0
    assert check_integrity(store.path).whole


def test_truth_needs_labels_in_the_stored_classes(photos, source, colour_teacher, tmp_path, capsys):
    with pytest.raises(LabellingError, match=r"--truth: .* has no labels whose probability could be stored"):
        run(open_source(f"folder:{photos}", labels=False), colour_teacher, tmp_path / "plus")
    (photos / "red").rename(photos / "warm")
    words = ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--k=2", "--workers=0", "--truth"]
    assert main(["reinforce", *words, "--classes=teacher", "--out", str(tmp_path / "plus")]) == 2
    assert (
        "--truth: is the probability of each image's own class, and --classes teacher keeps" in capsys.readouterr().err
    )


def test_the_command_stores_it_and_verify_asks_for_it_again(photos, colour_teacher, tmp_path, capsys):
    words = ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--views=3", "--k=2", "--workers=0"]
    assert main(["reinforce", *words, "--truth", "--out", str(tmp_path / "plus")]) == 0
    assert main(["verify", str(tmp_path / "plus"), "--source", f"folder:{photos}"]) == 0
    text = capsys.readouterr().out
    assert "72 views asked again, total-variation distance (or of the stored truth) 0.0" in text

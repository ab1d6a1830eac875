"""Which sources a reinforcement may be used with, and what is said when not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from tests.loading.stores import stored

from buttress.errors import SettingsError, SourceError, StoreError
from buttress.loading.coverage import look_up, match
from buttress.sources import ArraySource, Relabelled, Subset, open_source
from buttress.views.presets import preset


def test_the_same_source_needs_no_look_up(source, store):
    coverage = match(source, store)
    assert coverage.rows.tolist() == list(range(24))
    assert not coverage.changed


def test_a_moved_folder_works(source, store, photos, tmp_path):
    shutil.move(photos, tmp_path / "elsewhere")
    assert not match(open_source(f"folder:{tmp_path / 'elsewhere'}"), store).changed


def test_a_reordered_and_filtered_source_finds_its_own_rows(source, store):
    chosen = [5, 2, 17, 0]
    coverage = match(Subset(source, chosen), store)
    assert coverage.rows.tolist() == chosen
    assert coverage.changed
    assert coverage.line() == "4 of 4 samples are reinforced (24 in the reinforcement)"


def test_an_id_without_labels_is_named_or_trained_on_its_hard_label(source, store, photos):
    shutil.copy(photos / "red" / "02.png", photos / "red" / "new.png")
    extended = open_source(f"folder:{photos}")
    with pytest.raises(SourceError, match=r"red/new\.png has no stored labels \(1 of 25 .*--missing hard"):
        match(extended, store)
    coverage = match(extended, store, missing="hard")
    assert (coverage.rows < 0).sum() == 1
    assert "1 use their hard labels" in coverage.line()
    unlabelled = Relabelled(extended, np.full(25, -1))
    with pytest.raises(SourceError, match="neither stored labels nor a class"):
        match(unlabelled, store, missing="hard")


def test_other_class_names_are_refused(source, store):
    renamed = ArraySource(np.zeros((1, 4, 4, 3), np.uint8), [0], ids=[source.ids[0]], classes=("blue", "green", "rot"))
    with pytest.raises(StoreError, match=r"other class names \(\+rot, -red\)"):
        match(renamed, store)
    swapped = ArraySource(np.zeros((1, 4, 4, 3), np.uint8), [0], ids=[source.ids[0]], classes=("green", "blue", "red"))
    with pytest.raises(StoreError, match="same class names in another order"):
        match(swapped, store)


def test_a_changed_class_is_refused_and_named(source, store):
    labels = source.labels.copy()
    labels[4] = (labels[4] + 1) % 3
    with pytest.raises(StoreError, match=rf"{source.ids[4]}: its class is green but was blue"):
        match(Relabelled(source, labels), store)


def test_labels_that_came_or_went_are_fine(source, store):
    assert match(Relabelled(source, np.full(24, -1)), store).rows.tolist() == list(range(24))


def test_a_look_refuses_no_unknown_id(source, store, photos):
    shutil.copy(photos / "red" / "02.png", photos / "red" / "new.png")
    coverage = look_up(open_source(f"folder:{photos}"), store)
    assert (coverage.rows < 0).sum() == 1
    assert coverage.line().endswith("(24 in the reinforcement), 1 have no stored labels")


def test_the_teachers_own_classes_serve_any_source_without_its_labels(own_source, own_store):
    assert own_store.classes == ("blue", "green", "red")
    coverage = match(own_source, own_store)
    assert coverage.rows.tolist() == list(range(24))
    assert coverage.labels.tolist() == [-1] * 24
    assert "the classes are the teacher's own" in coverage.line()


def test_hard_labels_are_refused_where_the_classes_are_the_teachers_own(own_source, own_store):
    with pytest.raises(SettingsError, match=r"--missing hard: .* has the teacher's own classes"):
        match(own_source, own_store, missing="hard")
    chosen = ArraySource(np.zeros((1, 4, 4, 3), np.uint8), [0], ids=["new"], classes=("cold", "warm"))
    with pytest.raises(SourceError, match=r"new has no stored labels .* to label them$"):
        match(chosen, own_store)


def test_a_teacher_with_the_sources_very_classes_leaves_the_labels_in_use(source, colour_teacher, tmp_path):
    store = stored(source, colour_teacher, tmp_path / "same+", preset("crop"), "teacher", views=1)
    coverage = match(source, store, missing="hard")
    assert coverage.labels.tolist() == source.labels.tolist()
    assert "teacher's own" not in coverage.line()


def test_a_stored_label_beyond_the_stored_classes_is_named_by_its_number(source, colour_teacher, tmp_path):
    was = Relabelled(source, source.labels.copy())
    was.classes, was.labels = tuple("abcd"), (source.labels + 1).astype(np.int32)
    store = stored(was, colour_teacher, tmp_path / "was+", preset("crop"), "teacher", views=1)
    with pytest.raises(StoreError, match=r"blue/00\.png: its class is blue but was green"):
        match(source, store)
    with pytest.raises(StoreError, match=r"red/02\.png: its class is red but was number 3"):
        match(Subset(source, [source.ids.index("red/02.png")]), store)


def test_renamed_class_folders_are_recognised_and_named(store, photos):
    (photos / "red").rename(photos / "rot")
    with pytest.raises(StoreError) as caught:
        match(open_source(f"folder:{photos}"), store)
    text = str(caught.value)
    assert "other class names (+rot, -red)" in text
    assert "8 of 8 were renamed (the same bytes are stored under other ids, e.g. those of rot/02.png; " in text
    assert "class red is now rot): give them their old names back, or run buttress reinforce anew" in text


def test_renamed_files_are_told_from_new_ones_and_from_copies(store, photos, source):
    (photos / "red" / "02.png").rename(photos / "red" / "first.png")
    (photos / "red" / "05.png").rename(photos / "green" / "mended.png")
    shutil.copy(photos / "blue" / "00.png", photos / "blue" / "copy.png")
    (photos / "blue" / "new.png").write_bytes((photos / "blue" / "00.png").read_bytes() + b"other")
    renamed = open_source(f"folder:{photos}")
    with pytest.raises(SourceError, match=r"4 of 26 .* 2 of 4 were renamed .* those of green/mended\.png\): give"):
        match(renamed, store)
    line = match(renamed, store, missing="hard").line()
    assert "4 use their hard labels: 2 of 4 were renamed" in line
    assert match(source, store).renamed is None


def test_of_many_images_some_are_looked_at(store, photos, monkeypatch):
    monkeypatch.setattr("buttress.loading.renamed.LOOKED_AT", 3)
    for path in sorted((photos / "red").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    assert "about 8 of 8 were renamed" in look_up(open_source(f"folder:{photos}"), store).line()

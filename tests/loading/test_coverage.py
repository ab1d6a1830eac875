"""Which sources a reinforcement may be used with, and what is said when not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from buttress.errors import SourceError, StoreError
from buttress.loading.coverage import match
from buttress.sources import ArraySource, Relabelled, Subset, open_source


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

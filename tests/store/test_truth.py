"""The probability of the hard label: its byte, what is read back, and what a store without it says of it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.errors import StoreError
from buttress.files import json_bytes
from buttress.store.card import json_digest, settings_digest, standard_fields, truth_field
from buttress.store.card_file import CARD_NAME, read_card
from buttress.store.codec import VALUES_256
from buttress.store.reader import open_reinforcement
from buttress.store.truth import decode_log8, distance_from_log8, encode_log8
from buttress.store.verify import check_integrity

from .small_store import LABELLING, POLICY, RENDERER, TEACHER, Plan, densify


@given(st.floats(1e-6, 1))
def test_a_byte_is_right_to_2_8_percent(value):
    code = encode_log8(np.array([value]))
    read = decode_log8(code)
    assert abs(read[0] / value - 1) < 0.028
    assert distance_from_log8(np.array([value]), read)[0] <= 1e-7


def test_the_codes_are_those_of_the_records():
    assert decode_log8(np.arange(256, dtype=np.uint8)).tolist() == VALUES_256.tolist()
    assert encode_log8(np.array([0.0, 1e-30, 1e-7, 1e-6, 1.0, 1.0001])).tolist() == [0, 1, 1, 1, 255, 255]
    assert encode_log8(VALUES_256).tolist() == list(range(256))


def test_the_distance_counts_only_what_a_byte_can_tell():
    read = decode_log8(np.array([0, 1, 200, 255], np.uint8))
    assert distance_from_log8(np.array([0.0, 0.0, read[2] * 1.02, 0.98]), read).tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(
        distance_from_log8(np.array([0.3, 0.3, 0.3, 0.3]), read), [0.3, 0.3, 0.2485, 0.673], 2e-3
    )


@pytest.mark.parametrize("cuts", [((), ()), ((3, 5), (1,))], ids=["one part", "six parts"])
def test_what_is_stored_is_read_back_and_no_label_is_nan(tmp_path, cuts):
    plan = Plan(9, 3, classes=6, truth=True, seed=6)
    assert (plan.hard_labels < 0).any()
    reinforcement = open_reinforcement(plan.write(tmp_path, *cuts))
    rows, views = np.array([8, 0, 3, 3]), np.array([0, 2, 1, 0])
    assert plan.truth_VN is not None
    without = plan.hard_labels[rows] < 0
    expected = np.where(without, np.nan, decode_log8(plan.truth_VN[views, rows]))
    np.testing.assert_array_equal(reinforcement.truth(rows, views), expected)
    everything = reinforcement.truth(np.arange(9), 2)
    assert everything.dtype == np.float32
    said = plan.probabilities_VNC[2, np.arange(9), plan.hard_labels]
    np.testing.assert_array_equal(np.isnan(everything), plan.hard_labels < 0)
    np.testing.assert_allclose(
        everything[plan.hard_labels >= 0], np.maximum(said, 1e-6)[plan.hard_labels >= 0], rtol=0.028
    )
    assert reinforcement.truth(rows[:0], 0).shape == (0,)
    assert check_integrity(tmp_path).whole


@pytest.mark.parametrize(("k", "classes"), [(3, 12), (1, 4), (5, 5)])
def test_without_the_field_it_is_what_the_record_says_of_the_label(tmp_path, k, classes):
    plan = Plan(30, 2, k=k, classes=classes, seed=2)
    reinforcement = open_reinforcement(plan.write(tmp_path))
    dense = densify(*reinforcement.targets(np.arange(30), 1), classes)
    expected = np.where(plan.hard_labels < 0, np.nan, dense[np.arange(30), plan.hard_labels])
    np.testing.assert_allclose(reinforcement.truth(np.arange(30), 1), expected, rtol=1e-6)
    assert np.isnan(expected).any()


def test_rows_that_are_away_or_absent_are_refused(tmp_path):
    for name, truth in (("with", True), ("without", False)):
        reinforcement = open_reinforcement(Plan(4, 2, bad=(1,), truth=truth).write(tmp_path / name))
        with pytest.raises(StoreError, match="row 1 has no labels"):
            reinforcement.truth(np.array([0, 1]), 0)
        for rows, view in (([4], 0), ([-1], 0), ([0], 2)):
            with pytest.raises(IndexError):
                reinforcement.truth(np.array(rows), view)


def test_in_the_teachers_own_classes_nothing_is_known(tmp_path):
    plan = Plan(4, 2)
    folder = plan.write(tmp_path)
    reinforcement = open_reinforcement(folder)
    card = reinforcement.card
    object.__setattr__(card, "teachers", ({**TEACHER, "classes": "teacher"},))
    reinforcement._settings = plan.digest
    assert np.isnan(reinforcement.truth(np.arange(4), 0)).all()


def reseal(folder, change):
    path = folder / CARD_NAME
    value = json.loads(path.read_text())
    change(value)
    del value["digest"]
    path.write_bytes(json_bytes({**value, "digest": json_digest(value)}))


def test_another_codec_is_refused_by_name_only_when_truth_is_asked_for(tmp_path):
    folder = Plan(4, 2, truth=True).write(tmp_path)
    reseal(folder, lambda card: card["fields"][2].update(codec="log4"))
    reinforcement = open_reinforcement(folder)
    with pytest.raises(StoreError, match=r"'truth' has codec 'log4' version 1 .*reads 'log8' version 1"):
        reinforcement.truth(np.arange(4), 0)
    assert any("'log4'" in problem.what for problem in check_integrity(folder).problems)


def test_it_belongs_to_the_settings_only_where_it_is_stored():
    def digest(fields):
        return settings_digest(
            seed=0,
            k=2,
            classes=("a", "b", "c"),
            policy=POLICY,
            renderer=RENDERER,
            teachers=[TEACHER],
            labelling=LABELLING,
            fields=fields,
        )

    standard = standard_fields(2, 3)
    assert digest(standard) == digest(()) != digest((*standard, truth_field()))


def test_a_card_with_truth_reads_back_equal(tmp_path):
    card = read_card(Plan(4, 2, truth=True).write(tmp_path))
    assert card.fields[2] == truth_field()
    assert card.has_truth
    assert card.to_json()["fields"][2] == {
        "name": "truth",
        "codec": "log8",
        "version": 1,
        "dtype": "uint8",
        "shape": [],
        "per": "view",
        "teacher": 0,
    }


def test_a_truth_where_there_is_none_is_found(tmp_path):
    plan = Plan(6, 2, bad=(2,), truth=True, seed=1)
    assert plan.truth_VN is not None
    unlabelled = int(np.flatnonzero(plan.hard_labels < 0)[0])
    plan.truth_VN[1, unlabelled] = 9
    (problem,) = check_integrity(plan.write(tmp_path)).problems
    assert f"truth of view 1, row {unlabelled}" in problem.place

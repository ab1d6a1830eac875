"""Reading: every record under its row and view, whatever the parts, from any process."""

import pickle

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.errors import StoreError
from buttress.store.damage import DamageError
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.store.rows import INDEX_NAME

from .small_store import Plan, densify

CUTS = [((), ()), ((3,), ()), ((), (2,)), ((2, 5), (1, 4))]


@pytest.fixture(params=CUTS, ids=str)
def stored(request, tmp_path):
    plan = Plan(8, 5)
    return plan, open_reinforcement(plan.write(tmp_path / "photos+", *request.param))


def test_every_record_stands_under_its_row_and_view(stored):
    plan, reinforcement = stored
    for view in range(5):
        np.testing.assert_array_equal(reinforcement.records(np.arange(8), view), plan.labels_VNS[view])
        np.testing.assert_array_equal(
            reinforcement.records(np.array([7, 0, 7]), np.int64(view)), plan.labels_VNS[view, [7, 0, 7]]
        )
    rows, views = np.divmod(np.random.default_rng(0).permutation(40), 5)
    np.testing.assert_array_equal(reinforcement.records(rows, views), plan.labels_VNS[views, rows])
    assert reinforcement.records(np.zeros(0, np.int64), 0).shape == (0, plan.codec.stride)


def test_columns_and_sizes(stored):
    plan, reinforcement = stored
    np.testing.assert_array_equal(reinforcement.id_hashes, plan.id_hashes)
    np.testing.assert_array_equal(reinforcement.hard_labels, plan.hard_labels)
    np.testing.assert_array_equal(reinforcement.content_hashes, plan.content_hashes)
    assert (reinforcement.rows, reinforcement.views, reinforcement.k) == (8, 5, 3)
    assert reinforcement.classes == plan.names
    assert len(reinforcement.absent_rows) == 0
    assert reinforcement.probes().shape == (2, 4, 4, 3)


def test_targets_are_what_the_teacher_said(stored):
    plan, reinforcement = stored
    rows = np.array([6, 1, 3])
    values_BK, ids_BK, rest_B = reinforcement.targets(rows, 2)
    dense_BC = densify(values_BK, ids_BK, rest_B, 7)
    said_BC = plan.probabilities_VNC[2, rows]
    kept_BC = said_BC >= np.sort(said_BC, axis=1)[:, -3:-2]
    np.testing.assert_allclose(dense_BC[kept_BC], said_BC[kept_BC], rtol=0.06)
    values, ids, rest = reinforcement.target(6, 2)
    batch_values, batch_ids, batch_rest = reinforcement.targets(rows, 2)
    np.testing.assert_allclose(values, batch_values[0], rtol=1e-5)
    assert ids == batch_ids[0].tolist()
    assert rest == pytest.approx(batch_rest[0], rel=1e-5)


def test_a_row_or_view_that_is_not_there_is_never_another_one(stored):
    _, reinforcement = stored
    for row in (-1, 8):
        with pytest.raises(IndexError):
            reinforcement.records(np.array([0, row]), 0)
        with pytest.raises(IndexError):
            reinforcement.target(row, 0)
    for view in (-1, 5):
        with pytest.raises(IndexError):
            reinforcement.records(np.array([0]), view)
        with pytest.raises(IndexError):
            reinforcement.records(np.array([0]), np.array([view]))
        with pytest.raises(IndexError):
            reinforcement.target(0, view)


def test_it_travels_as_path_and_card(stored):
    plan, reinforcement = stored
    reinforcement.targets(np.arange(8), 1)
    data = pickle.dumps(reinforcement)
    assert len(data) < 20_000
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy.records(np.arange(8), 3), plan.labels_VNS[3])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 11), max_size=30))
def test_R2_any_list_of_ids_gets_its_own_rows(picked):
    plan = R2_PLAN
    reinforcement = R2_OPEN[0]
    known = np.concatenate([plan.id_hashes, np.array([17, 2**64 - 1, 0], np.uint64)])
    rows = reinforcement.rows_of(known[picked])
    assert rows.tolist() == [row if row < 9 else -1 for row in picked]
    here = rows[rows >= 0]
    np.testing.assert_array_equal(reinforcement.records(here, 1), plan.labels_VNS[1, here])


R2_PLAN = Plan(9, 2)
R2_OPEN: list[Reinforcement] = []


@pytest.fixture(autouse=True, scope="module")
def _stored_once(tmp_path_factory):
    R2_OPEN.append(open_reinforcement(R2_PLAN.write(tmp_path_factory.mktemp("once") / "photos+", (4,))))


def test_a_missing_or_damaged_index_is_made_anew(tmp_path):
    plan = Plan(9, 2)
    folder = plan.write(tmp_path / "photos+")
    twins = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7], np.uint32)
    safetensors.numpy.save_file({"rows": twins}, folder / "other")
    for data in (None, b"", b"\0" * 100, (folder / INDEX_NAME).read_bytes()[:-4], (folder / "other").read_bytes()):
        (folder / INDEX_NAME).unlink(missing_ok=True)
        if data is not None:
            (folder / INDEX_NAME).write_bytes(data)
        assert open_reinforcement(folder).rows_of(plan.id_hashes[::-1]).tolist() == list(range(8, -1, -1))


def test_the_index_file_is_used_and_is_the_sorted_order(tmp_path):
    plan = Plan(9, 2)
    folder = plan.write(tmp_path / "photos+")
    rows = safetensors.numpy.load_file(folder / INDEX_NAME)["rows"]
    assert rows.tolist() == np.argsort(plan.id_hashes).tolist()


def test_rows_whose_image_could_not_be_decoded_have_no_target(tmp_path):
    plan = Plan(6, 3, bad=(1, 4))
    reinforcement = open_reinforcement(plan.write(tmp_path / "photos+", (3,)))
    assert reinforcement.absent_rows.tolist() == [1, 4]
    reinforcement.targets(np.array([0, 2, 3, 5]), 1)
    with pytest.raises(StoreError, match="row 4 has no labels"):
        reinforcement.targets(np.array([0, 4]), 1)
    with pytest.raises(StoreError, match="row 1 has no labels"):
        reinforcement.target(1, 0)


def test_only_what_is_read_is_opened(tmp_path):
    plan = Plan(8, 4)
    folder = plan.write(tmp_path / "photos+", (4,), (2,))
    for name in ("part-00001-v0002.safetensors", "part-00001-v0002.json"):
        (folder / name).unlink()
    reinforcement = open_reinforcement(folder)
    np.testing.assert_array_equal(reinforcement.records(np.arange(8), 1), plan.labels_VNS[1])
    with pytest.raises(DamageError, match=r"part-00001-v0002\.json: file: cannot be opened \(No such file"):
        reinforcement.records(np.array([5]), 3)

"""Hard labels of mixed views, as the engine gets them: from every kind of batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.labelling.by_hand import mix_of
from tests.loading.stores import stored

from buttress.loading.auxiliary import AuxiliaryBatches
from buttress.loading.batches import ArrayBatch, HardBatches, ReinforcedBatches
from buttress.loading.loader import BatchLoader
from buttress.loading.online import OnlineBatches
from buttress.loading.targets import SparseTargets
from buttress.sources import Relabelled
from buttress.views.mix import own_share
from buttress.views.presets import preset

MIX = preset("mix")
LABELS = st.integers(-1, 4)


def only_batch(batches, workers=0):
    (batch,) = list(BatchLoader(batches, batch=24, shuffle=False, workers=workers))
    return batch


def expected(labels_N, epoch, classes, *, rows, source, partners=None):
    """Dense hard labels `[N, C]` by hand, of view `epoch` of every sample; `partners` = position of each row."""
    dense = np.zeros((len(source), classes), np.float32)
    for index, name in enumerate(source.ids):
        mix = mix_of(MIX, rows, name, epoch)
        own, share = labels_N[index], 1.0 if mix is None else own_share(mix, (16, 16))
        other = own if mix is None else labels_N[mix.partner if partners is None else partners[mix.partner]]
        if own >= 0 and other >= 0:
            dense[index, own] += share
            dense[index, other] += 1 - share
    return dense


@given(st.lists(st.tuples(LABELS, LABELS, st.sampled_from([1.0, 0.75, 0.5, 0.1])), min_size=1, max_size=9))
def test_masses_are_the_shares_of_the_labels_or_nothing(rows):
    labels, partners, shares = (np.array(column) for column in zip(*rows, strict=True))
    partners = np.where(shares == 1, -1, partners)
    batch = ArrayBatch(
        np.zeros((len(rows), 1, 1, 3), np.uint8),
        np.arange(len(rows)),
        np.zeros(len(rows), np.int64),
        labels.astype(np.int32),
        partners.astype(np.int32),
        shares.astype(np.float32),
    )
    values, ids, rest = batch.label_masses()
    assert not rest.any()
    assert ids.min() >= 0
    for own, other, share, value, id_ in zip(labels, partners, shares, values, ids, strict=True):
        known = own >= 0 and (share == 1 or other >= 0)
        assert value.sum() == pytest.approx(float(known))
        assert value[1] == 0 or id_[0] != id_[1]
        if known:
            mass = np.zeros(5)
            np.add.at(mass, id_, value)
            both = {own: share} if share == 1 or own == other else {own: share, other: 1 - share}
            assert {place: mass[place] for place in np.flatnonzero(mass)} == pytest.approx(
                {own: 1.0} if len(both) == 1 else both
            )


@pytest.mark.parametrize("workers", [0, 2])
def test_targets_of_mixed_hard_views_are_both_labels_and_nobodys_soft_targets(source, workers):
    batch = only_batch(HardBatches(source, MIX, seed=0, size=16), workers)
    assert batch.mixed
    assert isinstance(batch.targets, SparseTargets) and batch.targets.values.shape == (24, 2)
    dense = expected(source.labels, 0, 3, rows=24, source=source)
    np.testing.assert_allclose(batch.targets.dense().numpy(), dense, atol=1e-6)
    assert (dense.max(axis=1) < 1).sum() > 6


def test_hard_views_that_are_not_mixed_have_plain_labels(source):
    batch = only_batch(HardBatches(source, preset("crop"), seed=0, size=16))
    assert not batch.mixed
    assert torch.equal(batch.targets, torch.from_numpy(source.labels).long())


def test_stored_mixed_views_have_both_labels_beside_what_the_teacher_said(source, colour_teacher, tmp_path):
    store = stored(source, colour_teacher, tmp_path / "plus", MIX)
    batches = ReinforcedBatches(source, store, size=16, p=1.0)
    batch = only_batch(batches)
    assert not batch.mixed
    assert isinstance(batch.targets, SparseTargets) and isinstance(batch.labels, SparseTargets)
    arrays = batches.batch(range(24), 0)
    dense = np.zeros((24, 3), np.float32)
    np.add.at(dense, (np.arange(24), arrays.labels_B), arrays.own_share_B)
    others = arrays.own_share_B < 1
    np.add.at(dense, (np.flatnonzero(others), arrays.partner_labels_B[others]), 1 - arrays.own_share_B[others])
    np.testing.assert_allclose(batch.labels.dense().numpy(), dense, atol=1e-6)
    assert batch.labels.classes == 3
    alone = only_batch(ReinforcedBatches(source, store, size=16, p=0.0))
    assert torch.equal(alone.labels, torch.from_numpy(source.labels).long())


def test_labels_of_a_second_head_are_the_sources_partners_too(own_source, colour_teacher, tmp_path):
    store = stored(own_source, colour_teacher, tmp_path / "own+", MIX, "teacher")
    labels = own_source.labels.copy()
    labels[5] = -1
    some = Relabelled(own_source, labels)
    some.classes = own_source.classes
    for source in (own_source, some):
        batches = AuxiliaryBatches(source, store, size=16)
        batch, arrays = only_batch(batches), batches.batch(range(24), 0)
        assert isinstance(batch.labels, SparseTargets) and isinstance(batch.targets, SparseTargets)
        assert (batch.labels.classes, batch.targets.classes) == (2, 3)
        np.testing.assert_array_equal(arrays.labels_B, source.labels)
        own, other, share = arrays.labels_B, arrays.partner_labels_B, arrays.own_share_B
        known = (own >= 0) & ((share == 1) | (other >= 0))
        np.testing.assert_allclose(batch.labels.values.sum(1).numpy(), known)
        assert (other[share < 1] >= 0).sum() > 6
    assert 0 < (~known).sum() < 12


@pytest.mark.parametrize("workers", [0, 2])
def test_a_live_teachers_mixed_views_carry_both_labels(source, workers):
    labels = np.where(np.arange(24) % 5 == 0, -1, source.labels)
    some = Relabelled(source, labels)
    some.classes = source.classes
    batch = only_batch(OnlineBatches(some, MIX, seed=0, size=16, teacher_sizes=(20, 24)), workers)
    assert batch.mixed
    assert isinstance(batch.targets, SparseTargets)
    assert sorted(batch.teacher_views) == [20, 24]
    dense = expected(labels, 0, 3, rows=24, source=source)
    values, ids = batch.targets.values.numpy(), batch.targets.ids.numpy()
    found = np.zeros((24, 3), np.float32)
    np.add.at(found, (np.arange(24)[:, None], ids), values)
    np.testing.assert_allclose(found, dense, atol=1e-6)
    assert 0 < (dense.sum(axis=1) == 0).sum() < 24


def test_mixed_views_of_images_without_any_label_have_none(source):
    batch = only_batch(OnlineBatches(Relabelled(source, None), MIX, seed=0, size=16, teacher_sizes=(20,)))
    assert torch.equal(batch.targets, torch.full((24,), -1))


def test_a_partner_that_does_not_decode_is_named_and_its_views_are_left_out(source, photos):
    (photos / source.ids[3]).write_bytes(b"nothing")
    batch = OnlineBatches(source, MIX, seed=0, size=16, teacher_sizes=(20,)).batch(range(24), 0)
    mixes = [mix_of(MIX, 24, name, 0) for name in source.ids]
    lost = [row for row, mix in enumerate(mixes) if row == 3 or (mix is not None and mix.partner == 3)]
    assert batch.index_B.tolist() == [row for row in range(24) if row not in lost]
    assert set(batch.undecodable) == {source.ids[3]}
    assert batch.teacher_views is not None
    assert len(batch.teacher_views[20]) == 24 - len(lost) == len(batch.own_share_B)

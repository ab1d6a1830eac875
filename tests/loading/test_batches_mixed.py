"""Mixed views in training: with the partner that the teacher saw or not at all, whatever part of the images is here."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.labelling.by_hand import mix_of, view_of
from tests.loading.stores import reinforced, stored

from buttress.errors import SourceError
from buttress.loading import coverage
from buttress.loading.batches import HardBatches
from buttress.loading.dataset import ReinforcedDataset
from buttress.loading.loader import BatchLoader
from buttress.loading.order import view_of_epoch
from buttress.loading.targets import SparseTargets
from buttress.sources import ArraySource, Relabelled, Subset, id_hash, open_source
from buttress.views.keys import WordSource
from buttress.views.mix import own_share
from buttress.views.policy import CutMix, HorizontalFlip, MixUp, Policy, RandomCrop
from buttress.views.presets import preset
from buttress.views.render import Renderer

POLICY = preset("mix+randaug")
VIEWS = 4
MIXING = (7, 8)  # fixed numbers of MixUp and CutMix
READ_ONLY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def whole_store(source, colour_teacher, tmp_path):
    """`mixed_store` without a bad image."""
    return stored(source, colour_teacher, tmp_path / "whole+", POLICY)


def mixed_with(source, row, view):
    return mix_of(POLICY, 24, source.ids[row], view)


def expected_view(source, row, view, here):
    """The stored view that a sample takes where only some rows are here; none where it has none."""
    for turn in range(VIEWS):
        mix = mixed_with(source, row, (view + turn) % VIEWS)
        if mix is None or mix.partner in here:
            return (view + turn) % VIEWS
    return None


@READ_ONLY
@given(rows=st.permutations(range(24)), count=st.integers(1, 24), epoch=st.integers(0, 9))
def test_R2_any_part_in_any_order_sees_views_with_their_own_partners(source, mixed_store, rows, count, epoch):
    rows = rows[:count]
    here = set(rows) - {4}
    batches = reinforced(Subset(source, rows), mixed_store)
    batch = batches.batch(batches.usable, epoch)
    assert [rows[index] for index in batch.index_B] == [row for row in rows if row != 4]
    view = view_of_epoch(0, epoch, VIEWS)
    for place, index in enumerate(batch.index_B.tolist()):
        row = rows[index]
        taken = expected_view(source, row, view, here)
        if taken is None:  # its hard label, in a view that was not stored and is not mixed
            assert (batch.values_BK[place, 0], batch.ids_BK[place, 0]) == (1, source.labels[row])
            plain = view_of(POLICY.unmixed, source, source.ids[row], VIEWS + epoch)[0]
            np.testing.assert_array_equal(batch.views_BHWC[place], plain)
            assert (batch.own_share_B[place], batch.partner_labels_B[place]) == (1, -1)
            continue
        values, ids, rest = mixed_store.targets(np.array([row]), taken)
        np.testing.assert_array_equal(batch.values_BK[place], values[0])
        np.testing.assert_array_equal(batch.ids_BK[place], ids[0])
        assert batch.rest_B[place] == rest[0]
        np.testing.assert_array_equal(batch.views_BHWC[place], view_of(POLICY, source, source.ids[row], taken)[0])
        mix = mixed_with(source, row, taken)
        share, other = (1.0, -1) if mix is None else (own_share(mix, (24, 24)), source.labels[mix.partner])
        assert batch.own_share_B[place] == pytest.approx(share)
        assert (batch.labels_B[place], batch.partner_labels_B[place]) == (source.labels[row], other)


def test_with_all_images_every_view_is_the_epochs(source, whole_store):
    batches = reinforced(source, whole_store)
    assert "give way" not in batches.coverage.line()
    for epoch in range(VIEWS):
        view = view_of_epoch(0, epoch, VIEWS)
        np.testing.assert_array_equal(
            batches.batch(range(24), epoch).values_BK, whole_store.targets(range(24), view)[0]
        )


def test_rows_added_later_are_nobodys_partner_and_have_theirs_below_M(source, colour_teacher, tmp_path):
    stored(Subset(source, range(12)), colour_teacher, tmp_path / "grown+", POLICY)
    store = stored(source, colour_teacher, tmp_path / "grown+", POLICY)
    late = reinforced(Subset(source, range(12, 24)), store)
    assert late.coverage.undrawable > 20  # nothing that views are mixed with is here
    batch = late.batch(range(12), 0)
    assert (batch.own_share_B == 1).all()
    whole = reinforced(source, store).batch(range(24), 0)
    assert (whole.own_share_B < 1).sum() > 12


def test_the_views_that_give_way_are_counted_and_told_before_training(source, whole_store, monkeypatch):
    rows = list(range(0, 24, 2))
    mixes = [mixed_with(source, row, view) for row in rows for view in range(VIEWS)]
    away = sum(mix is not None and mix.partner not in rows for mix in mixes)
    part = Subset(source, rows)
    line = reinforced(part, whole_store).coverage.line()
    assert f", {away} of their 48 views give way to another (they are mixed with images that are not here)" in line
    monkeypatch.setattr(coverage, "COUNTED_VIEWS", 16)
    estimate = reinforced(part, whole_store).coverage
    looked_at = sum(mix is not None and mix.partner not in rows for mix in mixes[::3])
    assert f"about {3 * looked_at} of their 48 views" in estimate.line()


def test_without_a_view_and_without_a_label_a_sample_is_left_out(source, whole_store):
    unlabelled = Relabelled(source, np.full(24, -1))
    left_out = 0
    for row in range(24):
        batches = reinforced(Subset(unlabelled, [row]), whole_store)
        none = expected_view(source, row, 0, {row}) is None
        left_out += none
        assert len(batches.usable) == (0 if none else 1)
        assert ("1 left out (no view of theirs can be drawn)" in batches.coverage.line()) == none
    assert left_out > 0


def test_a_hard_view_is_never_mixed(source, whole_store):
    batches = reinforced(source, whole_store, p=0.0)
    for epoch in range(2):
        batch = batches.batch(range(24), epoch)
        np.testing.assert_array_equal(batch.ids_BK[:, 0], source.labels)
        assert (batch.own_share_B == 1).all()
        for row, pixels in enumerate(batch.views_BHWC):
            expected = view_of(POLICY.unmixed, source, source.ids[row], VIEWS + epoch)[0]
            np.testing.assert_array_equal(pixels, expected)


def test_a_partner_with_other_bytes_is_refused_and_named(source, whole_store, photos):
    view = view_of_epoch(0, 0, VIEWS)
    row, mix = next((row, mix) for row in range(24) if (mix := mixed_with(source, row, view)) and mix.partner != row)
    path = photos / source.ids[mix.partner]
    path.write_bytes((photos / source.ids[row]).read_bytes())
    with pytest.raises(
        SourceError, match=rf"{source.ids[mix.partner]}: the image has changed since the teacher saw it"
    ):
        reinforced(source, whole_store).batch([row], 0)


def test_the_dataset_gives_mixed_views_and_says_what_gives_way(source, mixed_store, capsys):
    dataset = ReinforcedDataset(Subset(source, range(0, 24, 2)), mixed_store, size=24, p=1.0)
    assert "give way to another" in capsys.readouterr().err
    assert len(dataset) == 11
    for epoch in range(VIEWS):
        dataset.set_epoch(epoch)
        for image, target in dataset.__getitems__(range(11)):
            assert image.shape == (3, 24, 24)
            assert target.sum() == pytest.approx(1, abs=1e-6)


def hand_made(count, classes):
    """Flat images, whose mean tells who is in a view and by how much."""
    levels = np.linspace(0, 255, count).astype(np.uint8)
    pixels = np.broadcast_to(levels[:, None, None, None], (count, 16, 16, 3)).copy()
    labels = [number % classes for number in range(count)]
    return ArraySource(pixels, labels, ids=[f"{i}" for i in range(count)], classes=tuple(map(str, range(classes))))


@pytest.mark.parametrize("workers", [0, 2])
def test_hard_targets_are_mixed_by_what_is_seen(workers):
    """Independent of our own shares: the brightness of a view of flat images is that mix of two levels."""
    source = hand_made(40, 7)
    policy = Policy((RandomCrop(padding=0.0), HorizontalFlip(), MixUp(), CutMix()))
    loader = BatchLoader(HardBatches(source, policy, seed=3, size=64), batch=40, shuffle=True, seed=1, workers=workers)
    assert loader.samples == 40
    renderer, seen = Renderer(policy, 3, 40), set()
    for epoch in range(3):
        loader.set_epoch(epoch)
        (batch,) = list(loader)
        assert isinstance(batch.targets, SparseTargets)
        assert batch.targets.values.shape == (40, 2)
        dense_BC = batch.targets.dense()
        torch.testing.assert_close(dense_BC.sum(1), torch.ones(40))
        for image, target, name in zip(batch.images, dense_BC, batch.ids, strict=True):
            own, mix = int(name), renderer.mix(id_hash(name), epoch)
            partner = own if mix is None else mix.partner
            levels, labels = (float(np.asarray(source[i].data).mean()) for i in (own, partner)), (own % 7, partner % 7)
            one, other = levels
            if labels[0] == labels[1]:
                assert target[labels[0]] == 1
                seen.add("same" if mix is not None else "alone")
                continue
            share = (float(image.float().mean()) - other) / (one - other)
            if abs(one - other) > 40:
                assert target[labels[0]] == pytest.approx(share, abs=0.04)
                assert target[labels[1]] == pytest.approx(1 - share, abs=0.04)
                seen.add("mixed")
    assert seen == {"same", "alone", "mixed"}


def partners_under(policy, seed, rows, names, view):
    """Row of every partner, under a policy that always mixes."""
    mixes = [Renderer(policy, seed, rows).mix(id_hash(name), view) for name in names]
    return [mix.partner for mix in mixes if mix is not None]


def test_hard_partners_are_drawn_among_the_labelled_samples():
    labels = np.where(np.arange(40) % 2, np.arange(40) % 7, -1)
    source = Relabelled(hand_made(40, 7), labels)
    policy = Policy((RandomCrop(padding=0.0), MixUp(p=1.0)))
    batches = HardBatches(source, policy, seed=3, size=16)
    batch = batches.batch(batches.usable, 0)
    partners = partners_under(policy, 3, 20, [source.ids[index] for index in batches.usable.tolist()], 0)
    np.testing.assert_array_equal(batch.partner_labels_B, labels[batches.usable[partners]])
    assert (batch.partner_labels_B >= 0).all()
    mixed = batch.partner_labels_B != batch.labels_B
    values_B2, _, rest_B = batch.label_masses()
    np.testing.assert_array_equal(values_B2[:, 0], np.where(mixed, batch.own_share_B, 1))
    np.testing.assert_allclose(values_B2.sum(1), 1, atol=1e-6)
    assert not rest_B.any()


def test_a_hard_view_whose_partner_does_not_decode_is_left_out_and_the_partner_named(source, photos):
    (photos / source.ids[3]).write_bytes(b"broken")
    policy = Policy((RandomCrop(), MixUp(p=1.0)))
    batches = HardBatches(source, policy, seed=0, size=24)
    partners = partners_under(policy, 0, 24, source.ids, 1)
    batch = batches.batch(range(24), 1)
    assert batch.index_B.tolist() == [row for row in range(24) if row != 3 and partners[row] != 3]
    assert set(batch.undecodable) == {source.ids[3]}


def test_without_mixing_a_batch_has_no_partners(source, store):
    for batch in (
        HardBatches(source, preset("crop"), seed=0, size=24).batch(range(24), 0),
        reinforced(source, store).batch(range(24), 0),
    ):
        assert (batch.partner_labels_B == -1).all()
        assert (batch.own_share_B == 1).all()
        assert (batch.partner_labels_B.dtype, batch.own_share_B.dtype) == (np.int32, np.float32)
    assert HardBatches(source, preset("crop"), seed=0, size=24).batch([0], 0).values_BK is None


def test_in_the_teachers_own_classes_partners_have_no_labels_either(own_source, colour_teacher, tmp_path):
    store = stored(own_source, colour_teacher, tmp_path / "own+", POLICY, "teacher")
    batch = reinforced(own_source, store).batch(range(24), 0)
    assert (batch.own_share_B < 1).any()
    assert (batch.partner_labels_B == -1).all()


def test_an_image_that_came_is_trained_on_its_hard_label_and_is_nobodys_partner(source, whole_store, photos):
    (photos / "red" / "new.png").write_bytes((photos / "red" / "02.png").read_bytes())
    extended = open_source(f"folder:{photos}")
    batches = reinforced(extended, whole_store, missing="hard")
    at = extended.ids.index("red/new.png")
    batch = batches.batch(range(25), 0)
    assert (batch.own_share_B[at], batch.values_BK[at, 0]) == (1, 1)
    others = np.delete(np.arange(25), at)
    view = view_of_epoch(0, 0, VIEWS)
    np.testing.assert_array_equal(batch.values_BK[others], whole_store.targets(np.arange(24), view)[0])


@pytest.mark.parametrize("kept", [24, 23])
def test_a_mix_is_drawn_once_whether_all_images_are_here_or_not(source, whole_store, kept, monkeypatch):
    drawn: Counter[tuple[int, int, int]] = Counter()
    words = WordSource.words

    def counted(self, view, id_hash, slot, count):
        drawn[view, id_hash, slot] += slot // 256 in MIXING
        return words(self, view, id_hash, slot, count)

    monkeypatch.setattr(WordSource, "words", counted)
    batches = reinforced(Subset(source, range(kept)), whole_store)
    batches.batch(range(kept), 0)
    assert max(drawn.values()) == 1

"""Batches: the teacher's very views with the teacher's very words, in any process, order and subset."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.labelling.by_hand import view_of
from tests.loading.stores import reinforced

from buttress.errors import SourceError, StoreError
from buttress.loading.batches import HardBatches
from buttress.loading.dataset import ReinforcedDataset
from buttress.loading.loader import BatchLoader
from buttress.loading.order import view_of_epoch
from buttress.loading.targets import SparseTargets
from buttress.sources import Relabelled, Subset, open_source
from buttress.views.presets import preset


def test_views_and_targets_are_the_stored_ones(source, store):
    batches = reinforced(source, store)
    for epoch in range(5):
        view = view_of_epoch(0, epoch, 4)
        batch = batches.batch([3, 20], epoch)
        values, ids, rest = store.targets(np.array([3, 20]), view)
        np.testing.assert_array_equal(batch.values_BK, values)
        np.testing.assert_array_equal(batch.ids_BK, ids)
        np.testing.assert_array_equal(batch.rest_B, rest)
        for place, index in enumerate((3, 20)):
            expected = view_of(store.card.policy, source, source.ids[index], view)[0]
            np.testing.assert_array_equal(batch.views_BHWC[place], expected)


def test_R14_a_subset_in_another_order_sees_the_same_pixels_and_words(source, store):
    whole, part = reinforced(source, store), reinforced(Subset(source, [9, 4]), store)
    ours, theirs = part.batch([0, 1], 3), whole.batch([9, 4], 3)
    np.testing.assert_array_equal(ours.views_BHWC, theirs.views_BHWC)
    np.testing.assert_array_equal(ours.values_BK, theirs.values_BK)


@pytest.mark.parametrize(
    ("kind", "indices"), [("store", range(24)), ("mixed_store", range(20, -1, -1))], ids=["plain", "mixed"]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_R14_worker_processes_see_the_same_pixels(source, request, kind, indices, workers):
    part, store = Subset(source, indices), request.getfixturevalue(kind)
    loader = BatchLoader(reinforced(part, store), batch=10, shuffle=True, seed=3, workers=workers)
    reference = reinforced(part, store)
    for epoch in (2, 0):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [len(batch.ids) for batch in batches] == [10, 10]
        for batch in batches:
            expected = reference.batch([part.ids.index(name) for name in batch.ids], epoch)
            np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1).numpy(), expected.views_BHWC)
            assert isinstance(batch.targets, SparseTargets)
            np.testing.assert_array_equal(batch.targets.values.numpy(), expected.values_BK)


def test_one_part_in_a_hundred_takes_a_fresh_view_and_its_hard_label(source, store):
    batches = reinforced(source, store, p=0.5)
    hard = np.concatenate([batches.batch(range(24), epoch).values_BK[:, 0] == 1 for epoch in range(40)])
    assert 0.4 < hard.mean() < 0.6
    batch = batches.batch(range(24), 0)
    at = int(np.flatnonzero(batch.values_BK[:, 0] == 1)[0])
    assert batch.ids_BK[at, 0] == source.labels[at]
    assert batch.rest_B[at] == 0
    fresh = view_of(store.card.policy, source, source.ids[at], 4)[0]
    np.testing.assert_array_equal(batch.views_BHWC[at], fresh)


def test_without_a_hard_label_every_view_is_reinforced(source, store):
    batches = reinforced(Relabelled(source, np.full(24, -1)), store, p=0.0)
    assert (batches.batch(range(24), 0).values_BK[:, 0] < 1).all()


def test_in_the_teachers_own_classes_no_view_is_hard(own_source, own_store):
    batch = reinforced(own_source, own_store, p=0.0).batch(range(24), 0)
    values, ids, _ = own_store.targets(np.arange(24), view_of_epoch(0, 0, 4))
    np.testing.assert_array_equal(batch.values_BK, values)
    np.testing.assert_array_equal(batch.ids_BK, ids)
    assert batch.labels_B.tolist() == [-1] * 24
    assert ReinforcedDataset(own_source, own_store, size=24, p=0.0)[0][1].shape == (3,)


def test_views_serve_any_size(source, store):
    small, large = (reinforced(source, store, size=size).batch([7], 0).views_BHWC for size in (16, 48))
    assert (small.shape, large.shape) == ((1, 16, 16, 3), (1, 48, 48, 3))
    assert abs(small.mean() - large.mean()) < 6


def test_an_image_with_other_bytes_is_refused_and_named(source, store, photos):
    path = photos / source.ids[6]
    path.write_bytes((photos / source.ids[7]).read_bytes())
    with pytest.raises(SourceError, match=rf"{source.ids[6]}: the image has changed since the teacher saw it"):
        reinforced(source, store).batch([5, 6], 0)


def test_another_renderer_is_refused(source, store, monkeypatch):
    monkeypatch.setattr("buttress.store.rendering.RENDERER_VERSION", 2)
    with pytest.raises(StoreError, match="drawn by the renderer opencv-linear version 1, this buttress has"):
        reinforced(source, store)


def test_views_that_look_different_are_refused_and_slight_differences_told(source, store, monkeypatch, capsys):
    monkeypatch.setattr("buttress.store.rendering.probe_views", lambda *_: store.probes() ^ 1)
    reinforced(source, store)
    assert "drawn with a difference of 1.000 grey levels" in capsys.readouterr().err
    monkeypatch.setattr("buttress.store.rendering.probe_views", lambda *_: 255 - store.probes())
    with pytest.raises(StoreError, match="more than 2"):
        reinforced(source, store)


def test_hard_views_are_fresh_every_epoch(source):
    batches = HardBatches(source, preset("randaug"), seed=0, size=24)
    first, again, second = (batches.batch([0], epoch).views_BHWC for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


def test_bad_images_are_left_out_counted_and_limited(source, photos, capsys):
    (photos / source.ids[3]).write_bytes(b"broken")
    batches = HardBatches(source, preset("crop"), seed=0, size=24)
    loader = BatchLoader(batches, batch=24, shuffle=False, max_bad=0.05)
    (batch,) = list(loader)
    assert len(batch.ids) == 23
    assert source.ids[3] not in batch.ids
    assert f"{source.ids[3]}: image cannot be decoded" in capsys.readouterr().err
    with pytest.raises(SourceError, match=r"1 of 24 images cannot be decoded, more than 0\.10%"):
        list(BatchLoader(batches, batch=24, shuffle=False))


def test_evaluation_keeps_the_last_smaller_batch_and_the_order(source):
    batches = HardBatches(source, preset("crop"), seed=0, size=24)
    loader = BatchLoader(batches, batch=10, shuffle=False)
    assert loader.steps_per_epoch == 3
    assert [name for batch in loader for name in batch.ids] == list(source.ids)


def test_a_source_without_labels_cannot_train_hard(photos):
    source = open_source(f"folder:{photos}", labels=False)
    with pytest.raises(SourceError, match="none of its 24 samples has a label"):
        HardBatches(source, preset("crop"), seed=0, size=24)


def test_the_dataset_is_plain_torch(source, store, photos):
    dataset = ReinforcedDataset(source, store, size=24, p=1.0)
    image, target = dataset[5]
    assert (image.shape, image.dtype, target.shape) == ((3, 24, 24), torch.uint8, (3,))
    assert target.sum() == pytest.approx(1, abs=1e-6)
    assert (target >= 0).all()
    assert len(dataset) == 24
    normalized = ReinforcedDataset(f"folder:{photos}", store.path, size=24, p=1.0, normalize=((0.5,) * 3, (0.25,) * 3))
    torch.testing.assert_close(normalized[5][0], (image.float() / 255 - 0.5) / 0.25)


def test_the_epoch_reaches_workers_that_live_on(source, store):
    dataset = ReinforcedDataset(source, store, size=24, p=1.0)
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=1, persistent_workers=True)
    seen: dict[int, list[torch.Tensor]] = {}
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        seen.setdefault(epoch, []).append(torch.cat([images for images, _ in loader]))
    torch.testing.assert_close(seen[0][0], seen[0][1])
    assert not torch.equal(seen[0][0], seen[1][0])

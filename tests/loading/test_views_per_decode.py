"""Several views of an image from one decode: the very views of as many epochs, each image once in that time."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from tests.loading.stores import reinforced

from buttress.errors import SettingsError
from buttress.loading import images
from buttress.loading.batches import HardBatches
from buttress.loading.loader import BatchLoader
from buttress.loading.schedule import WHOLE, Schedule, Share
from buttress.loading.targets import Batch, SparseTargets
from buttress.sources.decode import decode
from buttress.training.settings import EngineSettings
from buttress.views.presets import preset


def epochs_of(batches, numbers, **options) -> list[Batch]:
    loader = BatchLoader(batches, **{"batch": 8, "seed": 3, "shuffle": True, "views_per_decode": 4, **options})
    found = []
    for epoch in numbers:
        loader.set_epoch(epoch)
        found += list(loader)
    return found


@pytest.mark.parametrize("kind", ["store", "mixed_store"])
@pytest.mark.parametrize("workers", [0, 2])
def test_they_are_the_views_and_words_of_each_epoch(source, request, kind, workers):
    """Of every group of samples there is one batch in the view of each of four epochs."""
    reference = reinforced(source, request.getfixturevalue(kind))
    batches = epochs_of(reference, range(8), workers=workers, batch=4)
    schedule = Schedule(reference.usable, 4, 3, True, WHOLE, views=4)
    steps = schedule.steps
    assert steps in (5, 6) and schedule.apart == 1
    assert [len(set(batch.ids)) for batch in batches] == [4] * 8 * steps, "an epoch has the steps that it always has"
    shown = defaultdict(list)
    for time, batch in enumerate(batches):
        group, view = schedule.place(time)
        epoch = group // steps * 4 + view
        expected = reference.batch([source.ids.index(name) for name in batch.ids], epoch)
        np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1), expected.views_BHWC)
        assert isinstance(batch.targets, SparseTargets)
        np.testing.assert_array_equal(batch.targets.values, expected.values_BK)
        shown[group].append((time, view, batch.ids))
    whole = [views for views in shown.values() if len(views) == 4]
    assert len(whole) == 2 * steps - 3, "but those that the training begins and ends within"
    for views in whole:
        times, numbers, names = zip(*views, strict=True)
        assert np.diff(times).tolist() == [5] * 3 and numbers == (0, 1, 2, 3) and len(set(names)) == 1


def test_each_sample_comes_as_often_as_there_are_epochs(source):
    """In the long run: an epoch of several passes shows some twice and others not."""
    batches = epochs_of(HardBatches(source, preset("crop"), seed=0, size=16), range(40), batch=4)
    shown = Counter(name for batch in batches for name in batch.ids)
    assert len(shown) == 24 and all(36 <= number <= 44 for number in shown.values())
    assert sum(shown.values()) == 40 * 24


def test_hard_labels_too_and_the_order_changes(source):
    batches = HardBatches(source, preset("crop"), seed=0, size=16)
    first, second = (epochs_of(batches, range(start, start + 4)) for start in (0, 4))
    names = [[batch.ids for batch in some] for some in (first, second)]
    assert names[0] != names[1]
    assert not np.array_equal(first[0].images, first[1].images), "views of their own"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_decoded_once(source, tmp_path, monkeypatch, workers):
    """But those that the training begins with. Groups of four; three steps of six bring a new one."""
    told = tmp_path / "decoded"

    def counted(data):
        with told.open("a") as file:
            file.write(".")
        return decode(data)

    monkeypatch.setattr(images, "decode", counted)
    batches = HardBatches(source, preset("crop"), seed=0, size=16)
    shown = epochs_of(batches, range(10), views_per_decode=2, batch=4, workers=workers)
    # A region is decoded by itself where one view is asked for: the second views that the training begins with.
    assert len(shown) == 60 and len(told.read_text()) == 4 * 30


def test_memory_bounds_how_far_apart_they_are():
    def apart(**options):
        return Schedule(
            np.arange(100_000), **{"batch": 100, "seed": 0, "shuffle": True, "share": WHOLE, **options}
        ).apart

    assert apart(views=4, view_bytes=3 * 224 * 224) == (2 << 30) // (100 * 3 * 224 * 224 * 6) == 23
    assert apart(views=2, view_bytes=3 * 224 * 224) == 142
    assert apart(views=4, view_bytes=3 * 32 * 32) == 250, "every epoch is of as many samples as there are"
    assert apart(views=4, view_bytes=1 << 30) == 1 and apart(views=1) == 0


@pytest.mark.parametrize("views", [1, 2, 3, 5])
@pytest.mark.parametrize("samples", [5, 8, 24, 100])
def test_what_is_held_is_what_was_allowed(views, samples):
    """Every batch has been asked for before it is due, nothing twice, and no more is held than a line has."""
    schedule = Schedule(np.arange(samples), 8, 3, True, WHOLE, views=views)
    held: set[tuple[int, int]] = set()
    most = 0
    for epoch in range(7):
        schedule.epoch, schedule.groups_held = epoch, frozenset(group for group, _ in held)
        asked = iter(schedule)
        for time in schedule.times:
            group, view = schedule.place(time)
            if (group, view) not in held:
                epochs, _ = next(asked)
                of_group = {(group, epoch % views) for epoch in epochs}
                assert not of_group & held and {epoch // views for epoch in epochs} == {group // schedule.steps}
                held |= of_group
            held.remove((group, view))
            most = max(most, len(held))
        assert next(asked, None) is None
    assert most <= schedule.apart * views * (views - 1) // 2 + views


def test_resumed_anywhere_and_shared_by_processes_it_is_the_same(source, store):
    batches = reinforced(source, store)
    whole = epochs_of(batches, range(8))
    assert len(whole) == 24
    for done in range(24):
        loader = BatchLoader(batches, batch=8, seed=3, shuffle=True, views_per_decode=4)
        resumed = []
        for epoch in range(done // 3, 8):
            loader.set_epoch(epoch, done % 3 if epoch == done // 3 else 0)
            resumed += list(loader)
        for one, other in zip(whole[done:], resumed, strict=True):
            assert one.ids == other.ids and torch.equal(one.images, other.images)
    ranks = [epochs_of(batches, range(4), share=Share(rank=rank, world=2)) for rank in (0, 1)]
    for together, one, two in zip(whole, *ranks, strict=False):
        assert together.ids == one.ids + two.ids and len(one.ids) == len(two.ids) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_left_in_the_middle_it_goes_on_or_begins_anew(source, store, workers):
    batches = reinforced(source, store)
    whole = epochs_of(batches, range(3))
    loader = BatchLoader(batches, batch=8, seed=3, shuffle=True, views_per_decode=4, workers=workers)
    for _ in range(2):
        loader.set_epoch(1)
        begun = iter(loader)
        assert [next(begun).ids, next(begun).ids] == [batch.ids for batch in whole[3:5]]
    loader.set_epoch(1, 2)
    assert [batch.ids for batch in loader] == [whole[5].ids]
    loader.set_epoch(2)
    for one, other in zip(whole[6:9], loader, strict=True):
        assert one.ids == other.ids and torch.equal(one.images, other.images)


def test_what_is_held_is_not_in_shared_memory(source, store):
    """Of which there is little, and every tensor there is an open file."""
    loader = BatchLoader(reinforced(source, store), batch=4, shuffle=True, views_per_decode=4, workers=1)
    next(iter(loader))
    assert len(loader._held) == 3
    for batch, _ in loader._held.values():
        assert isinstance(batch.targets, SparseTargets)
        assert not any(tensor.is_shared() for tensor in (batch.images, batch.targets.values, batch.targets.ids))
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_one_is_what_it_was(source, store):
    batches = reinforced(source, store)
    one, plain = (epochs_of(batches, (1,), views_per_decode=number) for number in (1, 1))
    assert [batch.ids for batch in one] == [batch.ids for batch in plain]
    assert len(set(one[0].ids)) == 8


def test_none_is_refused():
    with pytest.raises(SettingsError, match=r"engine\.views_per_decode = 0: must be at least 1"):
        EngineSettings(views_per_decode=0)


def test_fewer_samples_than_a_batch(source):
    batches = epochs_of(HardBatches(source, preset("crop"), seed=0, size=16), range(4), batch=40)
    assert [len(set(batch.ids)) for batch in batches] == [24] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_does_not_decode_is_told_once(source, photos, capsys, workers):
    (photos / source.ids[5]).write_bytes(b"broken")
    batches = HardBatches(source, preset("crop"), seed=0, size=16)
    shown = Counter(name for batch in epochs_of(batches, range(4), workers=workers, max_bad=0.5) for name in batch.ids)
    assert len(shown) == 23 and source.ids[5] not in shown
    assert capsys.readouterr().err.count("cannot be decoded") == 1

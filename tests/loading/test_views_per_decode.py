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
from buttress.loading.online import OnlineBatches
from buttress.loading.order import delays, epoch_order
from buttress.loading.schedule import WHOLE, Request, Schedule, Share, apart, held_groups
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
    reference = reinforced(source, request.getfixturevalue(kind))
    batches = epochs_of(reference, range(8), workers=workers, batch=4)
    expected = shown(scheduled(len(reference.usable), 4, range(8), views=4, view_bytes=16 * 16 * 3))
    assert len(batches) == len(expected) == 8 * (len(reference.usable) // 4), "an epoch has its steps"
    for time, batch in enumerate(batches):
        places, epochs = zip(*expected[time], strict=True)
        indices = reference.usable[list(places)]
        assert batch.ids == tuple(source.ids[index] for index in indices)
        arrays = reference.batch(indices, np.array(epochs))
        np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1), arrays.views_BHWC)
        assert isinstance(batch.targets, SparseTargets)
        np.testing.assert_array_equal(batch.targets.values, arrays.values_BK)
        np.testing.assert_array_equal(batch.targets.ids, arrays.ids_BK)


def scheduled(count, batch, epochs, first_step=0, begun=0, **options) -> list[Request]:
    """All requests of some epochs, of which the first begins at a step."""
    schedule = Schedule(np.arange(count), batch, 3, True, WHOLE, **{"view_bytes": 1, **options})
    schedule.begun = begun
    found = []
    for number, epoch in enumerate(epochs):
        schedule.epoch, schedule.first_step = epoch, 0 if number else first_step
        found += list(schedule)
    return found


def shown(requests) -> dict[int, list[tuple[int, int]]]:
    """(sample, epoch whose view it has) in the order of slots, by batch; of those that the requests fill."""
    rows = defaultdict(list)
    for asked in requests:
        for sample, epoch, time, slot in zip(*(part.tolist() for part in fields_of(asked)), strict=True):
            rows[time].append((slot, sample, epoch))
    last = max(int(asked.time_M.min()) for asked in requests)
    return {time: [row[1:] for row in sorted(rows[time])] for time in sorted(rows) if time <= last + 3}


def fields_of(asked):
    return asked.index_M, asked.epoch_M, asked.time_M, asked.slot_M


@pytest.mark.parametrize("views", [1, 2, 3, 4])
@pytest.mark.parametrize(("count", "batch"), [(5, 8), (8, 8), (50, 8), (400, 8)])
def test_every_view_of_a_sample_is_shown_once(views, count, batch):
    """Each batch is whole, of one view, and asked for before it is due; the views of a pass come in their order."""
    epochs, steps, width = 12, max(count // batch, 1), min(count, batch)
    requests = scheduled(count, batch, range(epochs), views=views)
    filled: dict[int, set[int]] = defaultdict(set)
    times: dict[tuple[int, int], list[int]] = defaultdict(list)
    seen = set()
    for asked in requests:
        assert len(asked.index_M) and np.array_equal(np.unique(asked.time_M)[:1], asked.time_M[:1])
        for sample, epoch, time, slot in zip(*(part.tolist() for part in fields_of(asked)), strict=True):
            assert (sample, epoch) not in seen and slot not in filled[time] and epoch % views == time % views
            seen.add((sample, epoch))
            filled[time].add(slot)
            times[sample, epoch // views].append(time)
    assert all(len(filled[time]) == width for time in range(epochs * steps))
    assert all(np.all(np.diff(each) > 0) for each in times.values())
    if views == 1:
        assert set(filled) == set(range(epochs * steps))


def test_an_epoch_lies_between_two_views_where_memory_holds_them():
    """On the average, and never the same samples together."""
    times: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for asked in scheduled(6_400, 64, range(16), views=4):
        for sample, epoch, time, _ in zip(*(part.tolist() for part in fields_of(asked)), strict=True):
            times[sample, epoch // 4][epoch % 4] = time
    whole = [views for views in times.values() if len(views) == 4]
    waits = np.array([np.diff([views[number] for number in range(4)]) for views in whole])
    np.testing.assert_allclose(waits.mean(axis=0), 100, rtol=0.1)
    assert waits.min() >= 1 and waits.max() <= 201 and waits[:, 0].min() >= 50
    together = Counter(tuple(views[number] for number in (1, 2)) for views in whole)
    assert max(together.values()) < 10, "64 in groups that stay as they are"


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
    photo, gibi = 3 * 224 * 224, 1 << 30
    assert apart(10_000, 4, 256 * photo) == 6 and apart(10_000, 2, 256 * photo) == 36
    for views, batch in ((2, 256), (4, 256), (8, 64), (4, 512)):
        groups = apart(10_000, views, batch * photo)
        assert held_groups(groups, views) * batch * photo <= 2 * gibi < held_groups(groups + 2, views) * batch * photo
    assert apart(1_000, 4, 100 * 3 * 32 * 32) == 250, "a sample's views are an epoch apart"
    assert apart(1_000, 4, 4 * gibi) == 1 and apart(1_000, 1, 1) == 0
    assert apart(3, 4, 1) == 1 and apart(1, 4, 1) == 0


def test_slots_part_company_however_near_the_views_are():
    for groups in (1, 2, 23):
        delay_VB = delays(3, 4, 256, groups)
        assert (np.diff(delay_VB, axis=0) >= 0).all() and (delay_VB[0] == 0).all()
        together = Counter(map(tuple, delay_VB.T.tolist()))
        assert len(together) >= min(8, (groups + 1) ** 3) and max(together.values()) < 64
        np.testing.assert_allclose(delay_VB.mean(axis=1), groups * np.arange(4), atol=1.5)


def test_what_it_comes_to_is_told(source):
    batches = HardBatches(source, preset("crop"), seed=0, size=16)
    said = BatchLoader(batches, batch=2, shuffle=True, views_per_decode=3).line()
    assert said is not None and said.endswith(" MB of views are held, over all processes")
    assert said.startswith("3 views per decode: those of an image about 13 batches apart (an epoch has 12); about ")
    assert BatchLoader(batches, batch=2, shuffle=True).line() is None


@pytest.mark.parametrize("teachers", [(), (16,), (16, 24)])
def test_no_more_is_held_than_was_reckoned_with(source, teachers):
    batches = OnlineBatches(source, preset("crop"), seed=0, size=16, teacher_sizes=teachers)
    loader = BatchLoader(batches, batch=2, seed=3, shuffle=True, views_per_decode=3)
    most = 0
    for epoch in range(6):
        loader.set_epoch(epoch)
        for _ in loader:
            most = max(most, loader._line.bytes_held)
    assert batches.view_bytes == 3 * (16 * 16 + sum(side * side for side in teachers)) and apart(12, 3, 1) == 4
    assert 0.6 < most / (2 * batches.view_bytes * held_groups(4, 3)) <= 1


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
    first = next(iter(loader))
    assert first.images.is_contiguous(memory_format=torch.channels_last) and not first.images.is_shared()
    held = [arrays for rows in loader._line._due.values() for _, arrays, _ in rows]
    assert held and all(arrays.views_BHWC.base is None for arrays in held)


@pytest.mark.parametrize("workers", [0, 2])
def test_mixed_views_and_those_of_a_live_teacher(source, workers):
    mixing = HardBatches(source, preset("mix+randaug"), seed=3, size=16)
    kinds = {type(batch.targets) for batch in epochs_of(mixing, range(4), batch=3, workers=workers)}
    assert SparseTargets in kinds
    online = OnlineBatches(source, preset("crop"), seed=0, size=16, teacher_sizes=(24,))
    for batch in epochs_of(online, range(2), batch=4, workers=workers):
        assert batch.teacher_views is not None and batch.teacher_views[24].shape == (4, 24, 24, 3)
        assert batch.images.shape == (4, 3, 16, 16)


def test_the_line_outlives_what_is_shown_by_the_side(source, monkeypatch):
    """Batch statistics are estimated from other batches of the same loader, after every epoch of some methods."""
    batches = HardBatches(source, preset("crop"), seed=0, size=16)
    whole = epochs_of(batches, range(8), batch=4)
    alone = [epochs_of(batches, [epoch], views_per_decode=1, batch=4) for epoch in range(8)]
    drawn, draw = [], images.Images._draw

    def counted(*arguments):
        drawn.append(1)
        return draw(*arguments)

    monkeypatch.setattr(images.Images, "_draw", counted)
    loader = BatchLoader(batches, batch=4, seed=3, shuffle=True, views_per_decode=4)
    shown = []
    for epoch in range(8):
        loader.set_epoch(epoch)
        shown += list(loader)
        before = len(drawn)
        for one, other in zip(loader.pass_over(epoch), alone[epoch], strict=True):
            assert one.ids == other.ids and torch.equal(one.images, other.images)
        del drawn[before:]
    for one, other in zip(whole, shown, strict=True):
        assert one.ids == other.ids and torch.equal(one.images, other.images)
    assert len(drawn) == 8 * 24 + sum(map(len, loader._line._due.values())), "what is shown, and what is held"


def test_an_epoch_of_no_steps_leaves_nothing_behind(source):
    batches = HardBatches(source, preset("crop"), seed=0, size=16)
    whole = epochs_of(batches, range(3))
    loader = BatchLoader(batches, batch=8, seed=3, shuffle=True, views_per_decode=4)
    loader.set_epoch(1)
    begun = iter(loader)
    for _ in range(2):
        next(begun)
    loader.set_epoch(2, 3)
    assert not list(loader)
    loader.set_epoch(1, 2)
    shown = list(loader)
    loader.set_epoch(2)
    for one, other in zip(whole[5:], [*shown, *loader], strict=True):
        assert one.ids == other.ids and torch.equal(one.images, other.images)


def test_interrupted_in_a_batch_it_begins_anew(source, monkeypatch):
    batches = HardBatches(source, preset("crop"), seed=0, size=16)
    whole = epochs_of(batches, range(1))
    loader = BatchLoader(batches, batch=8, seed=3, shuffle=True, views_per_decode=4)
    begun = iter(loader)
    assert next(begun).ids == whole[0].ids
    with monkeypatch.context() as patched:
        patched.setattr(loader._line, "batch", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(begun)
    loader.set_epoch(0, 1)
    for one, other in zip(whole[1:], loader, strict=True):
        assert one.ids == other.ids and torch.equal(one.images, other.images)


def _interrupted(time):
    raise KeyboardInterrupt


@pytest.mark.parametrize("world", [3, 11])
def test_shares_that_are_not_even_or_empty(source, store, world):
    batches = reinforced(source, store)
    whole = epochs_of(batches, range(2))
    ranks = [epochs_of(batches, range(2), share=Share(rank=rank, world=world)) for rank in range(world)]
    for together, *parts in zip(whole, *ranks, strict=True):
        assert together.ids == tuple(name for part in parts for name in part.ids)
        assert torch.equal(together.images, torch.cat([part.images for part in parts]))


def test_one_is_an_epoch_in_its_order(source, store):
    batches = reinforced(source, store)
    for epoch in range(3):
        shown = epochs_of(batches, [epoch], views_per_decode=1)
        indices = batches.usable[epoch_order(3, epoch, len(batches.usable))]
        for number, batch in enumerate(shown):
            expected = batches.batch(indices[8 * number : 8 * number + 8], epoch)
            np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1), expected.views_BHWC)


def test_none_is_refused(source):
    with pytest.raises(ValueError, match="in one view each"):
        BatchLoader(HardBatches(source, preset("crop"), seed=0, size=16), batch=8, shuffle=False, views_per_decode=2)
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

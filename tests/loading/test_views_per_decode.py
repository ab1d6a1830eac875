"""Several views of an image from one decode: the very views of as many epochs, each image once in that time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from tests.loading.stores import reinforced

from buttress.errors import SettingsError
from buttress.loading import images
from buttress.loading.batches import HardBatches
from buttress.loading.loader import BatchLoader, Share
from buttress.loading.targets import Batch, SparseTargets
from buttress.sources.decode import decode
from buttress.training.settings import EngineSettings, TrainingSettings
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
    batches = epochs_of(reference, range(4, 8), workers=workers)
    steps = len(reference.usable) // 8
    assert [len(batch.ids) for batch in batches] == [8] * 4 * steps, "an epoch has the steps that it always has"
    for place, batch in enumerate(batches):
        assert len(set(batch.ids)) == 8
        assert batch.ids == batches[place // 4 * 4].ids, "four on end are of the same images"
        expected = reference.batch([source.ids.index(name) for name in batch.ids], 4 + place % 4)
        np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1), expected.views_BHWC)
        assert isinstance(batch.targets, SparseTargets)
        np.testing.assert_array_equal(batch.targets.values, expected.values_BK)
    shown = Counter(name for batch in batches for name in batch.ids)
    assert set(shown.values()) == {4} and len(shown) == 8 * steps


def test_hard_labels_too_and_the_order_changes(source):
    batches = HardBatches(source, preset("crop"), seed=0, size=16)
    first, second = (epochs_of(batches, range(start, start + 4)) for start in (0, 4))
    names = [[batch.ids for batch in some] for some in (first, second)]
    assert names[0] != names[1]
    assert not np.array_equal(first[0].images, first[1].images), "views of their own"


@pytest.mark.parametrize(("views", "requests"), [(4, 4), (2, 2), (3, 3)])
def test_an_image_is_decoded_once(source, monkeypatch, views, requests):
    """And anew where the batches of its views lie in two epochs (here of three batches); one alone by its region."""
    decoded = []

    def counted(data):
        decoded.append(1)
        return decode(data)

    monkeypatch.setattr(images, "decode", counted)
    epochs_of(HardBatches(source, preset("crop"), seed=0, size=16), range(views), views_per_decode=views)
    assert len(decoded) == 8 * requests


def test_resumed_inside_an_epoch_and_shared_by_processes_it_is_the_same(source, store):
    batches = reinforced(source, store)
    whole = epochs_of(batches, range(4))
    loader = BatchLoader(batches, batch=8, seed=3, shuffle=True, views_per_decode=4)
    loader.set_epoch(2, 1)
    assert [batch.ids for batch in loader] == [batch.ids for batch in whole[7:9]]
    ranks = [epochs_of(batches, range(4), share=Share(rank=rank, world=2)) for rank in (0, 1)]
    for together, one, two in zip(whole, *ranks, strict=True):
        assert together.ids == one.ids + two.ids and len(one.ids) == len(two.ids) == 4


def test_one_is_what_it_was(source, store):
    batches = reinforced(source, store)
    one, plain = (epochs_of(batches, (1,), views_per_decode=number) for number in (1, 1))
    assert [batch.ids for batch in one] == [batch.ids for batch in plain]
    assert len(set(one[0].ids)) == 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 10}, "epochs = 10: is no multiple of engine.views_per_decode = 4"),
    ],
)
def test_what_does_not_divide_is_refused(settings, said):
    with pytest.raises(SettingsError, match=said):
        TrainingSettings(**settings, engine=EngineSettings(views_per_decode=4))
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
    assert set(shown.values()) == {4} and len(shown) == 23
    assert capsys.readouterr().err.count("cannot be decoded") == 1

"""One view at two sizes for a live teacher, and own labels beside the teacher's classes."""

import numpy as np
import pytest

from buttress.errors import SettingsError, SourceError
from buttress.loading.auxiliary import AuxiliaryBatches
from buttress.loading.batches import HardBatches, ReinforcedBatches
from buttress.loading.loader import BatchLoader
from buttress.loading.online import OnlineBatches
from buttress.sources import Relabelled
from buttress.views.presets import preset


def test_teacher_and_student_see_one_view(source):
    """What each sees at its size is what plain batches of that size show."""
    policy = preset("randaug")
    batch = OnlineBatches(source, policy, seed=3, size=20, teacher_sizes=(28,)).batch([4, 0, 9], 2)
    np.testing.assert_array_equal(
        batch.views_BHWC, HardBatches(source, policy, seed=3, size=20).batch([4, 0, 9], 2).views_BHWC
    )
    assert batch.teacher_views is not None
    np.testing.assert_array_equal(
        batch.teacher_views[28], HardBatches(source, policy, seed=3, size=28).batch([4, 0, 9], 2).views_BHWC
    )
    assert batch.labels_B.tolist() == source.labels[[4, 0, 9]].tolist()


def test_one_size_is_drawn_once(source):
    batch = OnlineBatches(source, preset("small"), seed=0, size=16, teacher_sizes=(16,)).batch([1], 0)
    assert batch.teacher_views is not None
    assert batch.teacher_views[16].base is batch.views_BHWC.base


def test_mixed_views_are_the_same_at_every_size(source):
    """Partners too: a view of one size does not move those of another."""
    policy = preset("mix")
    alone = OnlineBatches(source, policy, seed=0, size=24, teacher_sizes=(24,)).batch(range(8), 1)
    both = OnlineBatches(source, policy, seed=0, size=16, teacher_sizes=(24,)).batch(range(8), 1)
    assert both.teacher_views is not None
    np.testing.assert_array_equal(alone.views_BHWC, both.teacher_views[24])


def test_unlabelled_images_can_be_shown_to_a_teacher(source):
    batches = OnlineBatches(Relabelled(source, None), preset("small"), seed=0, size=16, teacher_sizes=(20,))
    assert batches.batch([0, 1], 0).labels_B.tolist() == [-1, -1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_teachers_views_come_through_the_loader(source, workers):
    batches = OnlineBatches(source, preset("small"), seed=0, size=16, teacher_sizes=(20, 12))
    loader = BatchLoader(batches, batch=5, shuffle=True, workers=workers)
    for batch in loader:
        assert batch.teacher_views is not None
        assert {side: views.shape for side, views in batch.teacher_views.items()} == {
            20: (5, 20, 20, 3),
            12: (5, 12, 12, 3),
        }


def test_an_image_that_does_not_decode_is_left_out_at_every_size(photos, source):
    (photos / source.ids[1]).write_bytes(b"nothing")
    batch = OnlineBatches(source, preset("small"), seed=0, size=16, teacher_sizes=(20,)).batch([0, 1, 2], 0)
    assert batch.undecodable == (source.ids[1],)
    assert batch.index_B.tolist() == [0, 2]
    assert batch.teacher_views is not None
    assert len(batch.views_BHWC) == len(batch.teacher_views[20]) == 2


def test_auxiliary_batches_have_own_labels_and_the_teachers_targets(own_source, own_store):
    batch = AuxiliaryBatches(own_source, own_store, size=16).batch([0, 5, 23], 1)
    plain = ReinforcedBatches(own_source, own_store, size=16).batch([0, 5, 23], 1)
    assert batch.labels_B.tolist() == own_source.labels[[0, 5, 23]].tolist()
    np.testing.assert_array_equal(batch.ids_BK, plain.ids_BK)
    np.testing.assert_array_equal(batch.values_BK, plain.values_BK)


def test_the_classes_of_an_auxiliary_head_must_be_the_teachers(source, store):
    with pytest.raises(SettingsError, match=r"holds the classes of .* themselves; use --head own"):
        AuxiliaryBatches(source, store, size=16)


def test_an_auxiliary_head_beside_no_labels_at_all_is_refused(own_source, own_store):
    nothing = Relabelled(own_source, np.full(len(own_source), -1))
    nothing.classes = ("cold", "warm")
    with pytest.raises(SourceError, match="none of its 24 samples has a label"):
        AuxiliaryBatches(nothing, own_store, size=16)


def test_truth_is_what_the_store_says_of_the_own_class(source, store):
    batches = ReinforcedBatches(source, store, size=16, p=0.5, truth=True)
    batch = batches.batch(range(24), 0)
    assert batch.truth_B is not None
    view = next(v for v in range(4) if np.isclose(store.truth(np.arange(24), v), batch.truth_B).sum() > 4)
    soft = ~np.isnan(batch.truth_B)
    assert 0 < soft.sum() < 24  # views that were not stored have none
    np.testing.assert_array_equal(batch.truth_B[soft], store.truth(np.arange(24), view)[soft])

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandAugment as TorchvisionRandAugment

from buttress.views.draw import RAND_AUGMENT_OPS, Drawer, _augmentation_space, below, draw, log_uniform, unit
from buttress.views.policy import (
    HorizontalFlip,
    Policy,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    ResizeCenterCrop,
)
from buttress.views.presets import preset

UINT64 = st.integers(0, 2**64 - 1)
SIDES = st.integers(1, 5000)
FULL = 2**64 - 1


def inside(box):
    left, top, width, height = box
    most = 1 + 1e-12
    return min(left, top) >= 0 < min(width, height) and left + width <= most and top + height <= most


@given(seed=st.integers(0, 2**63 - 1), id_hash=UINT64, view=st.integers(0, 10**6), width=SIDES, height=SIDES)
def test_boxes_lie_inside_and_keep_their_ratio(seed, id_hash, view, width, height):
    policy = Policy((RandomResizedCrop(), HorizontalFlip(), RandomErasing(p=1.0)))
    parameters = draw(policy, seed, id_hash, view, (width, height))
    assert inside(parameters.box)
    assert inside(parameters.erase[0])
    ratio = parameters.box[2] * width / (parameters.box[3] * height)
    assert 3 / 4 * (1 - 1e-9) <= ratio <= 4 / 3 * (1 + 1e-9)
    assert parameters.box[2] * parameters.box[3] <= 1.0


@given(id_hash=UINT64, view=st.integers(0, 1000))
def test_a_small_crop_has_the_area_drawn(id_hash, view):
    policy = Policy((RandomResizedCrop(scale=(0.1, 0.4)),))
    box = draw(policy, 3, id_hash, view, (500, 500)).box
    assert 0.1 - 1e-9 <= box[2] * box[3] <= 0.4 + 1e-9


@given(id_hash=UINT64, view=st.integers(0, 1000))
def test_a_padded_crop_moves_by_at_most_its_padding(id_hash, view):
    left, top, width, height = draw(preset("small"), 3, id_hash, view, (32, 32)).box
    assert max(abs(left), abs(top)) <= 4 / 32
    assert (width, height) == (1.0, 1.0)


@given(width=SIDES, height=SIDES, fraction=st.floats(0.01, 1.0))
def test_the_center_crop_is_a_centred_square(width, height, fraction):
    policy = Policy((ResizeCenterCrop(crop_fraction=fraction, interpolation="area"),))
    parameters = draw(policy, 1, 2, 3, (width, height))
    left, top, box_width, box_height = parameters.box
    assert box_width * width == pytest.approx(fraction * min(width, height))
    assert box_height * height == pytest.approx(fraction * min(width, height))
    assert left + box_width / 2 == pytest.approx(0.5)
    assert top + box_height / 2 == pytest.approx(0.5)
    assert parameters.antialias == "area"


def test_unit_covers_zero_to_just_below_one():
    assert unit(0) == 0.0
    assert unit(FULL) == 1.0 - 2.0**-53


def test_below_reaches_both_ends_evenly():
    assert (below(0, 14), below(FULL, 14)) == (0, 13)
    drawn = [below(word * (2**64 // 14_000), 14) for word in range(14_000)]
    assert max(abs(count - 1000) for count in np.bincount(drawn)) <= 1


@given(word=UINT64, low=st.floats(1e-3, 1.0), factor=st.floats(1.0, 1e3))
def test_log_uniform_is_uniform_in_the_logarithm(word, low, factor):
    drawn = log_uniform(word, low, low * factor)
    assert low <= drawn <= low * factor
    assert math.log(drawn / low) == pytest.approx(unit(word) * math.log(factor), abs=1e-8)


def test_probabilities_zero_and_one_are_certain():
    never = Policy((RandomCrop(), HorizontalFlip(p=0.0), RandomErasing(p=0.0)))
    always = Policy((RandomCrop(), HorizontalFlip(p=1.0), RandomErasing(p=1.0)))
    for view in range(200):
        assert draw(never, 1, 2, view, (32, 32))[1:4] == (False, (), ())
        parameters = draw(always, 1, 2, view, (32, 32))
        assert (parameters.flip, len(parameters.erase)) == (True, 1)


def test_distributions_over_many_samples():
    drawer = Drawer(preset("randaug"), 11)
    drawn = [drawer.parameters(id_hash * 0x9E3779B97F4A7C15 % 2**64, 0, (512, 512)) for id_hash in range(8000)]
    assert np.mean([p.flip for p in drawn]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([len(p.erase) for p in drawn]) == pytest.approx(0.25, abs=0.02)
    ops = [name for p in drawn for name, _ in p.augment]
    shares = [ops.count(name) / len(ops) for name in RAND_AUGMENT_OPS]
    assert shares == pytest.approx([1 / 14] * 14, abs=0.008)
    signs = [value > 0 for p in drawn for name, value in p.augment if name == "Rotate"]
    assert np.mean(signs) == pytest.approx(0.5, abs=0.05)
    free = [p.box for p in drawn if p.box[2] < 1 and p.box[3] < 1]
    logs = [math.log(width / height) for _, _, width, height in free]
    assert np.mean(logs) == pytest.approx(0.0, abs=0.01)
    erased = [math.log(box[3] / box[2]) for p in drawn for box in p.erase if max(box[2:]) < 1]
    assert np.std(erased) == pytest.approx(math.log(11) / math.sqrt(12), abs=0.03)
    lefts = [box[0] / (1 - box[2]) for box in free]
    assert np.histogram(lefts, 4, (0, 1))[0] / len(free) == pytest.approx([0.25] * 4, abs=0.02)


def test_inserting_an_op_moves_no_other_ops_draws():
    short = Policy((RandomResizedCrop(), RandomErasing(p=1.0)))
    long = Policy((RandomResizedCrop(), HorizontalFlip(), RandAugment(), RandAugment(num_ops=3), RandomErasing(p=1.0)))
    for view in range(20):
        one, other = (draw(policy, 7, 99, view, (500, 375)) for policy in (short, long))
        assert (one.box, one.erase) == (other.box, other.erase)
        assert len(other.augment) == 5


def test_names_of_views_matter_and_order_does_not():
    drawer = Drawer(preset("randaug"), 7)
    names = [(id_hash, view) for id_hash in (1, 2, 2**64 - 1) for view in range(20)]
    forward = {name: drawer.parameters(*name, (500, 375)) for name in names}
    backward = {name: drawer.parameters(*name, (500, 375)) for name in reversed(names)}
    assert forward == backward
    assert len(set(forward.values())) == len(names)
    assert draw(preset("randaug"), 8, 1, 0, (500, 375)) != forward[1, 0]


@pytest.mark.parametrize("num_bins", [31, 11])
@pytest.mark.parametrize("magnitude", [0, 1, 5, 9, 10])
def test_the_magnitude_space_is_torchvisions(magnitude, num_bins):
    theirs = TorchvisionRandAugment()._augmentation_space(num_bins, (1, 1))
    ours = _augmentation_space(magnitude, num_bins)
    assert [positive[0] for positive, _ in ours] == list(theirs) == list(RAND_AUGMENT_OPS)
    for (name, positive), (_, negative) in ours:
        magnitudes, signed = theirs[name]
        value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
        assert positive == pytest.approx(value, rel=1e-6)
        assert negative == (-positive if signed else positive)


def test_a_drawer_survives_pickling_and_json_keeps_every_bit():
    drawer = Drawer(preset("randaug"), 7)
    parameters = drawer.parameters(5, 6, (500, 375))
    assert pickle.loads(pickle.dumps(drawer)).parameters(5, 6, (500, 375)) == parameters
    assert json.loads(json.dumps(parameters.to_json())) == parameters.to_json()

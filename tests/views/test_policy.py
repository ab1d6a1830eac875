import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.errors import PolicyError
from buttress.views.policy import (
    OPS,
    RESERVED_NUMBERS,
    CutMix,
    HorizontalFlip,
    MixUp,
    Policy,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    ResizeCenterCrop,
)

PAIRS = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: tuple(sorted(pair)))
CROPS = st.one_of(
    st.builds(RandomResizedCrop, scale=PAIRS, ratio=PAIRS),
    st.builds(RandomCrop, padding=st.floats(0, 1)),
    st.builds(ResizeCenterCrop, crop_fraction=st.floats(0.01, 1), interpolation=st.sampled_from(["bilinear", "area"])),
)
POLICIES = st.builds(
    lambda crop, flips, augments, erasings, mixing: Policy((crop, *flips, *augments, *erasings, *mixing)),
    CROPS,
    st.lists(st.builds(HorizontalFlip, p=st.floats(0, 1)), max_size=2),
    st.lists(st.builds(RandAugment, num_ops=st.integers(1, 4), magnitude=st.integers(0, 30)), max_size=2),
    st.lists(st.builds(RandomErasing, p=st.floats(0, 1), scale=PAIRS), max_size=2),
    st.sampled_from([(), (MixUp(),), (CutMix(p=0.1),), (MixUp(p=1.0), CutMix(p=0.0))]),
)


@given(POLICIES)
def test_json_round_trip_is_exact(policy):
    assert Policy.from_json(json.loads(json.dumps(policy.to_json(), allow_nan=False))) == policy


def test_op_numbers_are_fixed():
    numbers = {name: kind.number for name, kind in OPS.items()} | RESERVED_NUMBERS
    assert numbers == {
        "RandomResizedCrop": 1,
        "RandomCrop": 2,
        "HorizontalFlip": 3,
        "RandAugment": 4,
        "RandomErasing": 5,
        "ResizeCenterCrop": 6,
        "MixUp": 7,
        "CutMix": 8,
        "Partner": 9,
    }


def test_slots_count_occurrences_of_each_kind():
    policy = Policy((RandomCrop(), HorizontalFlip(), RandAugment(), RandAugment(num_ops=1), RandomErasing()))
    assert policy.slots() == (512, 768, 1024, 1025, 1280)


def test_settings_left_out_take_their_defaults():
    assert Policy.from_json({"version": 1, "ops": [{"op": "RandomCrop"}]}) == Policy((RandomCrop(),))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "not a JSON object"),
        ({"version": 2, "ops": []}, "version 2"),
        ({"ops": []}, "version None"),
        ({"version": 1, "ops": [], "opps": 1}, "unknown key 'opps'.*ops"),
        ({"version": 1, "ops": {}}, "not a list"),
        ({"version": 1, "ops": ["RandomCrop"]}, "policy op 0: not an object"),
        ({"version": 1, "ops": [{"op": "RandomResizeCrop"}]}, "unknown op 'RandomResizeCrop'.*RandomResizedCrop"),
        ({"version": 1, "ops": [{"op": "RandomCrop", "pading": 0.1}]}, "unknown key 'pading'.*padding"),
        ({"version": 1, "ops": [{"op": "RandomCrop", "padding": "4"}]}, "padding is '4'"),
        ({"version": 1, "ops": [{"op": "ResizeCenterCrop", "interpolation": ["area"]}]}, "interpolation is"),
    ],
)
def test_bad_json_is_refused_with_its_place(value, message):
    with pytest.raises(PolicyError, match=message) as refused:
        Policy.from_json(value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomResizedCrop(scale=(0.0, 1.0)),
        lambda: RandomResizedCrop(scale=(0.5, 0.1)),
        lambda: RandomResizedCrop(scale=(0.5, 1.1)),
        lambda: RandomResizedCrop(ratio=(0.5,)),  # type: ignore[arg-type]
        lambda: RandomCrop(padding=-0.1),
        lambda: RandomCrop(padding=float("nan")),
        lambda: HorizontalFlip(p=1.5),
        lambda: HorizontalFlip(p=True),
        lambda: RandAugment(num_ops=0),
        lambda: RandAugment(magnitude=31),
        lambda: RandAugment(num_bins=1),
        lambda: RandAugment(magnitude=9.0),  # type: ignore[arg-type]
        lambda: RandomErasing(scale=(0.1, 2.0)),
        lambda: MixUp(p=1.1),
        lambda: CutMix(p=-0.1),
        lambda: ResizeCenterCrop(crop_fraction=0.0),
        lambda: ResizeCenterCrop(interpolation="lanczos"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(PolicyError):
        make()


@pytest.mark.parametrize(
    "ops",
    [
        (),
        (HorizontalFlip(),),
        (RandomCrop(), RandomResizedCrop()),
        (HorizontalFlip(), RandomCrop()),
        (RandomCrop(), RandAugment(), HorizontalFlip()),
        (RandomCrop(), RandomErasing(), RandAugment()),
        (RandomCrop(), *[RandAugment()] * 16),
        (RandomCrop(), MixUp(), MixUp()),
        (RandomCrop(), MixUp(), CutMix(), CutMix()),
        (RandomCrop(), CutMix(), MixUp()),
        (RandomCrop(), MixUp(), RandomErasing()),
        ("RandomCrop",),
    ],
)
def test_policies_without_one_crop_first_are_refused(ops):
    with pytest.raises(PolicyError, match="policy"):
        Policy(ops)


def test_probability_zero_stays_zero():
    assert HorizontalFlip(p=0).p == 0.0

"""Mixing: which partner, how much of whom, and the pixels that come of it."""

import pickle
from fractions import Fraction
from math import floor, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.errors import PolicyError
from buttress.sources.decode import UndecodableImage
from buttress.views.draw import Drawer, Mix, draw
from buttress.views.mix import mix_into, own_share
from buttress.views.policy import CutMix, MixUp, Policy, RandomResizedCrop
from buttress.views.presets import PRESETS, eval_policy, preset
from buttress.views.probes import PROBES, probe_image, probe_picture
from buttress.views.render import Renderer, UndecodablePartner, render

from .philox import reference_words
from .pictures import noise

UINT64 = st.integers(0, 2**64 - 1)
MIXING = [name for name, policy in PRESETS.items() if policy.mixes]
ALWAYS = Policy((RandomResizedCrop(), MixUp(p=1.0), CutMix(p=1.0)))


def always(seed, rows, id_hash, view):
    """The mix of a view under `ALWAYS`."""
    mix = Drawer(ALWAYS, seed, rows).mix(id_hash, view)
    assert mix is not None
    return mix


@given(seed=st.integers(0, 2**63 - 1), id_hash=UINT64, view=st.integers(0, 10**6), rows=st.integers(1, 2**40))
def test_a_mix_follows_from_the_words_as_the_page_says(seed, id_hash, view, rows):
    def unit(slot, word):
        return Fraction(reference_words(seed, view, id_hash, slot, 4)[word] >> 11, 2**53)

    mix = Drawer(preset("mix"), seed, rows).mix(id_hash, view)
    up, cut = unit(1792, 0) < Fraction(1, 2), unit(2048, 0) < Fraction(1, 2)
    assert (mix is not None) == (up or cut)
    if mix is None:
        return
    assert mix.partner == reference_words(seed, view, id_hash, 2304, 1)[0] % rows
    assert mix.mixup == pytest.approx(float(1 - unit(1792, 1) / 2 if up else 1), abs=1e-15)
    assert (mix.cutmix is not None) == cut
    if mix.cutmix is not None:
        side, (x, y) = sqrt(1 - unit(2048, 1)), (float(unit(2048, word)) for word in (2, 3))
        left, top, width, height = mix.cutmix
        assert (left, top) == pytest.approx((max(x - side / 2, 0), max(y - side / 2, 0)), abs=1e-15)
        assert left + width == pytest.approx(min(x + side / 2, 1), abs=1e-12)
        assert top + height == pytest.approx(min(y + side / 2, 1), abs=1e-12)


def test_half_of_the_views_have_each_op_and_shares_are_even():
    drawer = Drawer(preset("mix"), 11, 10)
    drawn = [drawer.mix(id_hash * 0x9E3779B97F4A7C15 % 2**64, 3) for id_hash in range(8000)]
    mixes = [mix for mix in drawn if mix is not None]
    assert len(mixes) / 8000 == pytest.approx(0.75, abs=0.02)
    weights = [mix.mixup for mix in mixes if mix.mixup < 1]
    boxes = [mix.cutmix for mix in mixes if mix.cutmix is not None]
    both = [mix for mix in mixes if mix.mixup < 1 and mix.cutmix is not None]
    counts = [len(found) / 8000 for found in (weights, boxes, both)]
    assert counts == pytest.approx([0.5, 0.5, 0.25], abs=0.02)
    assert np.histogram(weights, 5, (0.5, 1))[0] / len(weights) == pytest.approx([0.2] * 5, abs=0.02)
    whole = [box[2] * box[3] for box in boxes if box[0] > 0 and box[1] > 0 and box[0] + box[2] < 1 > box[1] + box[3]]
    # A box of side s lies inside with probability (1 - s)^2, and s^2 is even: 1 in 6, of mean area 1/30 over 1/6.
    assert np.mean(whole) == pytest.approx(1 / 5, abs=0.02)
    assert len(whole) / len(boxes) == pytest.approx(1 / 6, abs=0.02)
    shares = [mix.partner for mix in mixes]
    assert np.bincount(shares) / len(mixes) == pytest.approx([0.1] * 10, abs=0.02)


@settings(deadline=None)
@given(id_hash=UINT64, view=st.integers(0, 1000), size=st.sampled_from([(16, 16), (64, 64), (224, 224), (96, 160)]))
def test_the_own_share_is_what_is_seen_of_the_own_image_at_any_size(id_hash, view, size):
    """A white image mixed with a black one is as bright as the own share."""
    mix = always(3, 100, id_hash, view)
    white_HWC = np.full((*size, 3), 255, np.uint8)
    mix_into(white_HWC, np.zeros_like(white_HWC), mix)
    assert white_HWC.mean() / 255 == pytest.approx(own_share(mix, size), abs=1 / 255)  # whole grey levels
    assert 0 <= own_share(mix, size) <= mix.mixup


@settings(deadline=None)
@given(weight=st.floats(0.5, 1.0))
def test_mixup_rounds_the_exact_sum_to_the_nearest_level(weight):
    own, partner = (levels.astype(np.uint8) for levels in np.mgrid[0:256, 0:256])
    out = np.stack([own] * 3, axis=-1)
    mix_into(out, np.stack([partner] * 3, axis=-1), Mix(0, weight))
    share = floor(weight * 65536 + 0.5)
    exact = (share * own.astype(np.int64) + (65536 - share) * partner.astype(np.int64) + 32768) // 65536
    np.testing.assert_array_equal(out, np.stack([exact] * 3, axis=-1))
    assert np.abs(exact - (weight * own + (1 - weight) * partner)).max() <= 0.5 + 255 / 2**17


def test_cutmix_comes_after_mixup_and_shows_the_partner_alone():
    own, partner = noise(64, 64, 1), noise(64, 64, 2)
    out, blended = own.copy(), own.copy()
    mix_into(blended, partner, Mix(0, 0.75))
    mix_into(out, partner, Mix(0, 0.75, (0.25, 0.5, 0.5, 0.25)))
    np.testing.assert_array_equal(out[32:48, 16:48], partner[32:48, 16:48])
    out[32:48, 16:48] = blended[32:48, 16:48]
    np.testing.assert_array_equal(out, blended)
    assert own_share(Mix(0, 0.75, (0.25, 0.5, 0.5, 0.25)), (64, 64)) == 0.75 * 0.875


def test_the_share_of_a_box_is_that_of_its_pixels_at_the_size_in_hand():
    mix = Mix(0, 1.0, (0.3, 0.3, 0.3, 0.3))
    assert own_share(mix, (10, 10)) == 1 - 9 / 100
    assert own_share(mix, (4, 4)) == 1 - 1 / 16  # 1.2..2.4 is 1..2
    assert own_share(mix, (4, 8)) == 1 - 3 / 32
    assert own_share(Mix(0, 0.5, (1.0, 1.0, 0.0, 0.0)), (2, 2)) == 0.5 * 0.75  # a box shows one pixel at least


@pytest.mark.parametrize("name", MIXING)
def test_the_partner_shows_its_own_view_of_the_same_number(name):
    renderer, image = Renderer(preset(name), 5, PROBES), probe_image()
    plain = Renderer(preset(name).unmixed, 5)
    mixed = 0
    for view in range(24):
        expected = plain.views(image, 99, [view], 48)[0]
        mix = renderer.mix(99, view)
        if mix is not None:
            mixed += 1
            mix_into(expected, plain.views(*probe_picture(mix.partner), [view], 48)[0], mix)
        np.testing.assert_array_equal(renderer.views(image, 99, [view], 48, probe_picture)[0], expected)
    assert 12 <= mixed < 24


@settings(deadline=None)
@given(id_hash=UINT64, view=st.integers(0, 1000))
def test_an_image_mixed_with_itself_stays_as_it_is(id_hash, view):
    image = probe_image()
    alone = Renderer(ALWAYS.unmixed, 5).views(image, id_hash, [view], 24)
    mixed = Renderer(ALWAYS, 5, 1).views(image, id_hash, [view], 24, lambda row: (image, id_hash))
    np.testing.assert_array_equal(mixed, alone)


@given(id_hash=UINT64, view=st.integers(0, 1000), name=st.sampled_from(MIXING))
def test_mixing_moves_no_other_draw(id_hash, view, name):
    drawn = draw(preset(name), 7, id_hash, view, (500, 375), rows=50)
    assert drawn._replace(mix=None) == draw(preset(name).unmixed, 7, id_hash, view, (500, 375))
    assert drawn.mix == Drawer(preset(name), 7, 50).mix(id_hash, view)
    alone = Policy((RandomResizedCrop(), CutMix()))
    box = Drawer(alone, 7, 50).mix(id_hash, view)
    assert (None if drawn.mix is None else drawn.mix.cutmix) == (None if box is None else box.cutmix)


def test_the_same_at_any_size_of_the_same_fractions():
    """Drawn at 64 and at 128: the box has the same place, to a pixel."""
    own, partner = np.zeros((128, 128, 3), np.uint8), np.full((128, 128, 3), 255, np.uint8)
    for view in range(50):
        mix = always(9, 9, 1, view)._replace(mixup=1.0)
        large, small = own.copy(), own[::2, ::2].copy()
        mix_into(large, partner, mix)
        mix_into(small, partner[::2, ::2], mix)
        edges = [np.flatnonzero(np.any(side, axis=axis)[:, 0])[[0, -1]] for side in (large, small) for axis in (0, 1)]
        assert np.abs(np.array(edges[:2]) / 2 - np.array(edges[2:])).max() <= 1


def test_a_policy_that_mixes_needs_to_know_its_rows():
    for rows in (None, 0):
        with pytest.raises(PolicyError, match=r"MixUp and CutMix need to know how many images there are"):
            Renderer(preset("mix"), 0, rows)
    assert Drawer(preset("crop"), 0).mix(1, 2) is None
    copy = pickle.loads(pickle.dumps(Renderer(preset("mix"), 3, 77)))
    assert [copy.mix(5, view) for view in range(9)] == [Drawer(preset("mix"), 3, 77).mix(5, view) for view in range(9)]


def test_an_evaluation_look_never_mixes():
    assert not eval_policy(96, 0.875, "bicubic").mixes
    assert MIXING == ["mix", "mix+randaug", "small-mix", "small-mix+randaug"]
    assert [preset(name).unmixed for name in ("mix", "mix+randaug", "small-mix+randaug")] == [
        preset("crop"),
        preset("randaug"),
        preset("small"),
    ]


@pytest.mark.parametrize("fault", ["raised", "bytes"])
def test_a_partner_that_does_not_decode_is_named_and_the_row_stays(fault):
    def broken(row):
        if fault == "raised":
            raise UndecodableImage("gone")
        return b"not an image", row

    renderer, partner = Renderer(ALWAYS, 3, 50), always(3, 50, 1, 2).partner
    out = np.full((8, 8, 3), 9, np.uint8)
    with pytest.raises(UndecodablePartner, match=rf"row {partner}, which the view is mixed") as held:
        renderer.view_into(probe_image(), 1, 2, out, broken)
    assert out.min() == out.max() == 9
    assert pickle.loads(pickle.dumps(held.value)).row == partner


def test_a_mixed_view_is_never_drawn_without_its_partner():
    mixed = draw(ALWAYS, 1, 2, 3, (32, 32), rows=4)
    with pytest.raises(AssertionError):
        render(noise(32, 32), mixed, 16)
    with pytest.raises(AssertionError):
        render(noise(32, 32), mixed._replace(mix=None), 16, None, noise(16, 16))
    with pytest.raises(AssertionError, match="pictures of other rows"):
        Renderer(ALWAYS, 1, 4).views(noise(32, 32), 2, [3], 16)

import numpy as np
import pytest
import torch
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import InterpolationMode

from buttress.views.render import render

from .pictures import noise, probe_image, smooth, whole

OPS = [
    ("ShearX", 0.3),
    ("ShearX", -0.09),
    ("ShearY", 0.09),
    ("ShearY", -0.3),
    ("TranslateX", 0.25),
    ("TranslateX", -0.125),
    ("TranslateY", 0.125),
    ("TranslateY", -0.25),
    ("Rotate", 30.0),
    ("Rotate", -9.0),
]
SIDE = 128
WHITE = np.full((SIDE, SIDE, 3), 255, np.uint8)


def torchvisions(image_HWC, name, value):
    value = value * SIDE if name.startswith("Translate") else value
    image_CHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)
    return _apply_op(image_CHW, name, value, InterpolationMode.BILINEAR, None).permute(1, 2, 0).numpy()


def covered(*ops, flip=False):
    """Where a white image still shows, away from the edge of the black."""
    return render(WHITE, whole(augment=ops, flip=flip), SIDE).min(-1) == 255


@pytest.mark.parametrize("op", OPS, ids=str)
def test_agrees_with_torchvision_away_from_edges(op):
    image = smooth(SIDE, SIDE)
    ours, theirs = render(image, whole(augment=(op,)), SIDE), torchvisions(image, *op)
    seen = covered(op)
    assert 0.5 < seen.mean() < 1
    assert np.abs(ours[seen].astype(int) - theirs[seen]).mean() < 0.5
    black = render(WHITE, whole(augment=(op,)), SIDE).max(-1) == 0
    assert np.mean(black == (torchvisions(WHITE, *op).max(-1) == 0)) > 0.98


@pytest.mark.parametrize("flip", [False, True])
def test_ops_act_in_the_order_drawn_after_the_flip(flip):
    ops = ("ShearX", 0.3), ("Rotate", 30.0), ("TranslateY", 0.25)
    image = smooth(SIDE, SIDE)
    stepwise = image[:, ::-1] if flip else image
    for op in ops:
        stepwise = torchvisions(np.ascontiguousarray(stepwise), *op)
    ours = render(image, whole(augment=ops, flip=flip), SIDE)
    seen = covered(*ops, flip=flip) & (stepwise.max(-1) > 0)
    assert np.abs(ours[seen].astype(int) - stepwise[seen]).mean() < 1.0
    swapped = render(image, whole(augment=ops[::-1], flip=flip), SIDE)
    assert np.abs(ours[seen].astype(int) - swapped[seen]).mean() > 3.0


def test_a_flip_alone_is_the_flip_of_a_warped_view():
    image = probe_image()
    plain = render(image, whole(flip=True), 64)
    assert np.array_equal(plain, render(image, whole(), 64)[:, ::-1])
    warped = render(image, whole(flip=True, augment=(("TranslateX", 0.0),)), 64)
    assert np.abs(warped.astype(int) - plain).max() <= 1


@pytest.mark.parametrize("side", [20, 64, 100, 150, 300])
def test_nothing_beyond_the_crop_shows(side):
    """A black crop in a white image stays black, whatever moves it; so at every density of the crop's pixels."""
    image = np.full((200, 200, 3), 255, np.uint8)
    image[20:180, 20:180] = 0
    for op in OPS:
        view = render(image, whole(augment=(op,))._replace(box=(0.1, 0.1, 0.8, 0.8)), side)
        assert view.max() == 0, op


@pytest.mark.parametrize("side", [20, 64, 100, 300])
def test_what_a_translation_uncovers_is_black_and_the_rest_is_the_crop(side):
    view = render(np.full((200, 200, 3), 255, np.uint8), whole(augment=(("TranslateX", 0.25),)), side)
    assert view[:, : side // 4 - 1].max() == 0
    inner = view[2:-2, side // 4 + 2 : -2]
    assert inner.min() == 255
    assert view[0, -side // 2].min() > 120  # an edge that the op does not move is at most half a pixel soft


def test_the_warp_does_not_alias():
    """Noise shrunk twofold or more averages out; sampling it would keep its spread of 74 levels."""
    view = render(noise(512, 512), whole(augment=(("TranslateX", 0.0),)), 64)
    assert view[4:-4, 4:-4].std() < 15

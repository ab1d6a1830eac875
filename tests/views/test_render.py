import hashlib
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.sources.decode import UndecodableImage
from buttress.views.draw import ViewParameters, draw
from buttress.views.presets import PRESETS, eval_policy, preset
from buttress.views.probes import PROBES, probe_picture
from buttress.views.render import Renderer, render

from .pictures import WHOLE, noise, probe_image, smooth, whole

POLICIES = [*PRESETS.values(), eval_policy(96, 0.875, "bicubic")]


def renderer_of(policy, seed):
    """A renderer whose partners are the 16 probe pictures."""
    return Renderer(policy, seed, PROBES)


def smooth_picture(row):
    return smooth(300 + 20 * row, 400)[:, ::-1].copy(), 77 + row


def encoded(image_HWC, extension=".jpg"):
    return cv2.imencode(extension, image_HWC[:, :, ::-1])[1].tobytes()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [48, (40, 56)])
def test_both_paths_give_the_same_bytes(policy, size):
    """One decode of many views, one decode a view, a preallocated row, a pickled renderer, any order."""
    renderer = renderer_of(policy, 5)
    data, numbers = encoded(probe_image()), [7, 0, 3, 11, 5, 2**40]
    views = renderer.views(data, 99, numbers, size, probe_picture)
    copy = pickle.loads(pickle.dumps(renderer))
    for position in reversed(range(len(numbers))):
        out = np.full((2, *views.shape[1:]), 77, np.uint8)
        copy.view_into(data, 99, numbers[position], out[1], probe_picture)
        assert np.array_equal(out[1], views[position])
        assert out[0].min() == out[0].max() == 77


@pytest.mark.parametrize("name", ["randaug", "mix+randaug"])
def test_a_view_at_several_sizes_is_as_at_each_and_asks_for_its_partner_once(name):
    renderer, asked = renderer_of(preset(name), 5), []

    def picture(row):
        asked.append(row)
        image_HWC, id_hash = probe_picture(row)
        return encoded(image_HWC), id_hash

    for view in range(12):
        outs = [np.empty((*size, 3), np.uint8) for size in [(48, 48), (20, 20), (40, 56)]]
        asked.clear()
        renderer.view_into_each(encoded(probe_image()), 99, view, outs, picture)
        assert asked == [mix.partner for mix in [renderer.mix(99, view)] if mix is not None]
        for out in outs:
            alone = renderer.views(encoded(probe_image()), 99, [view], out.shape[:2], picture)
            np.testing.assert_array_equal(out, alone[0])


def test_another_process_draws_the_same_bytes():
    script = (
        "import hashlib, numpy as np\n"
        "from buttress.views.probes import PROBES, probe_image, probe_picture\n"
        "from buttress.views.presets import preset\n"
        "from buttress.views.render import Renderer\n"
        "renderer = Renderer(preset('mix+randaug'), 3, PROBES)\n"
        "views = renderer.views(probe_image(), 2**64 - 9, range(24), 48, probe_picture)\n"
        "print(hashlib.sha256(views.tobytes()).hexdigest())\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    views = renderer_of(preset("mix+randaug"), 3).views(probe_image(), 2**64 - 9, range(24), 48, probe_picture)
    assert ran.stdout.strip() == hashlib.sha256(views.tobytes()).hexdigest()


def test_opencvs_threads_change_no_byte():
    big = np.tile(probe_image(), (5, 5, 1))
    views = [renderer_of(policy, 3).views(big, 4, range(12), 160, probe_picture) for policy in POLICIES]
    assert cv2.getNumThreads() == 1
    try:
        cv2.setNumThreads(4)
        threaded = [renderer_of(policy, 3).views(big, 4, range(12), 160, probe_picture) for policy in POLICIES]
    finally:
        cv2.setNumThreads(0)
    assert all(np.array_equal(one, other) for one, other in zip(views, threaded, strict=True))


@pytest.mark.parametrize("policy", PRESETS.values(), ids=PRESETS)
def test_a_view_shows_the_same_at_every_size(policy):
    """Drawn at 64 and at 128 and halved: the same picture, whatever was drawn.

    Equalize, as torchvision defines it, divides by a whole number of pixels per level: 6 % coarser on 4,096 pixels.
    """
    image = smooth(375, 500)
    renderer = renderer_of(policy, 9)
    small = renderer.views(image, 1, range(40), 64, smooth_picture)
    large = renderer.views(image, 1, range(40), 128, smooth_picture)
    for view, (one, other) in enumerate(zip(small, large, strict=True)):
        halved = cv2.resize(other, (64, 64), interpolation=cv2.INTER_AREA)
        names = [name for name, _ in renderer.parameters(image, 1, view).augment]
        mix = renderer.mix(1, view)
        if mix is not None:
            names += [name for name, _ in renderer.parameters(*smooth_picture(mix.partner), view).augment]
        assert np.abs(one.astype(int) - halved).mean() < (12.0 if "Equalize" in names else 4.0), names
        assert np.median(np.abs(one.astype(int) - halved)) <= (12 if "Equalize" in names else 4), names


def test_a_rectangular_view_is_the_square_one_stretched():
    image = smooth(375, 500)
    renderer = Renderer(preset("randaug"), 9)
    square, wide = renderer.views(image, 1, range(20), 64), renderer.views(image, 1, range(20), (64, 128))
    for one, other in zip(square, wide, strict=True):
        narrowed = cv2.resize(other, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.median(np.abs(one.astype(int) - narrowed)) <= 2


def test_different_views_differ():
    views = Renderer(preset("randaug"), 9).views(probe_image(), 1, range(32), 32)
    assert len({view.tobytes() for view in views}) == 32


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 5000), (5000, 3), (2, 2)])
def test_extreme_images_are_drawn(policy, shape):
    height, width = shape
    image_HWC = noise(height, width)
    views = renderer_of(policy, 1).views(image_HWC, 2, range(12), 33, lambda row: (noise(height, width, row), row))
    assert views.shape == (12, 33, 33, 3)
    assert views.max() > 0


@pytest.mark.parametrize("size", [1, 2, (1, 9)])
def test_extreme_outputs_are_drawn(size):
    views = Renderer(preset("randaug"), 1).views(probe_image(), 2, range(40), size)
    assert len({view.tobytes() for view in views}) > 10


def test_greyscale_arrays_are_drawn_as_grey():
    grey = probe_image()[:, :, 0].copy()
    views = Renderer(preset("crop"), 1).views(grey, 2, range(4), 32)
    assert np.array_equal(views[..., 0], views[..., 1])
    assert np.array_equal(views[..., 0], views[..., 2])


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    out_height=st.integers(1, 70),
    out_width=st.integers(1, 70),
    view=st.integers(0, 1000),
)
def test_every_shape_renders_fully_and_leaves_the_source_alone(policy, height, width, out_height, out_width, view):
    image = np.full((height, width, 3), 200, np.uint8)
    image.flags.writeable = False
    size = out_height, out_width
    parameters = draw(policy, 1, 2, view, (width, height), rows=9)
    partner = None if parameters.mix is None else noise(*size)
    first = render(image, parameters, size, np.zeros((*size, 3), np.uint8), partner)
    second = render(image, parameters, size, np.full((*size, 3), 255, np.uint8), partner)
    assert np.array_equal(first, second)
    assert image.min() == image.max() == 200


def test_erased_boxes_are_black_and_nothing_else_is():
    parameters = whole(erase=((0.25, 0.5, 0.5, 0.25), (0.9, 0.9, 1e-6, 1e-6)))
    view = render(np.full((50, 50, 3), 255, np.uint8), parameters, 64)
    expected = np.full((64, 64, 3), 255, np.uint8)
    expected[32:48, 16:48] = 0
    expected[58, 58] = 0  # at least one pixel
    assert np.array_equal(view, expected)


def test_erasing_is_last():
    view = render(probe_image(), whole(erase=(WHOLE,), augment=(("Solarize", 0.0),)), 32)
    assert view.max() == 0


def test_colour_follows_geometry():
    """What a translation uncovers is black for the statistics of the colour ops, in either order of drawing."""
    ops = ("Solarize", 0.0), ("TranslateX", 0.25)
    one, other = (render(probe_image(), whole(augment=drawn), 64) for drawn in (ops, ops[::-1]))
    assert np.array_equal(one, other)
    assert one[:, :15].min() == 255


def test_a_crop_shows_its_box():
    image = noise(100, 200)
    view = render(image, ViewParameters((0.25, 0.5, 0.2, 0.3)), (30, 40))
    assert np.array_equal(view, image[50:80, 50:90])


def test_parameters_are_known_before_decoding():
    image = probe_image()
    renderer = Renderer(preset("randaug"), 3)
    expected = draw(preset("randaug"), 3, 8, 1, (192, 144))
    assert renderer.parameters(encoded(image), 8, 1) == renderer.parameters(image, 8, 1) == expected
    assert renderer.parameters(encoded(image, ".png"), 8, 1) == expected


def test_what_is_no_image_is_refused_and_the_row_stays():
    renderer = Renderer(preset("crop"), 3)
    out = np.full((8, 8, 3), 9, np.uint8)
    with pytest.raises(UndecodableImage):
        renderer.view_into(b"not an image", 1, 2, out)
    assert out.min() == out.max() == 9
    with pytest.raises(UndecodableImage):
        renderer.views(encoded(probe_image())[:500], 1, [0], 8)
    with pytest.raises(UndecodableImage):
        renderer.parameters(b"", 1, 2)

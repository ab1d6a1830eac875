import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from buttress.views.resample import cut, resize_antialiased, resize_into

from .pictures import WHOLE, noise, probe_image, smooth

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "area": Image.Resampling.BOX}


def pillows(image_HWC, box, size, kind):
    height, width = image_HWC.shape[:2]
    left, top, box_width, box_height = box
    pixels = (left * width, top * height, min((left + box_width) * width, width), (top + box_height) * height)
    return np.asarray(Image.fromarray(image_HWC).resize(size, FILTERS[kind], box=pixels))


@pytest.mark.parametrize("size", [(96, 96), (48, 64), (40, 30), (16, 16), (200, 170)])
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_antialiased_filters_are_close_to_pillows(kind, size):
    box = (0.0625, 0.0625, 0.875, 0.875)
    out = np.empty((size[1], size[0], 3), np.uint8)
    resize_antialiased(probe_image(), box, out, kind)
    # The made picture is all hard edges; photos come out at a third of this (docs/views.md).
    assert np.abs(out.astype(int) - pillows(probe_image(), box, size, kind)).mean() < 4.0
    resize_antialiased(smooth(144, 192), box, out, kind)
    assert np.abs(out.astype(int) - pillows(smooth(144, 192), box, size, kind)).mean() < 0.6


@pytest.mark.parametrize(("kind", "bound"), [("bilinear", 1.0), ("bicubic", 0.8)])
def test_photos_are_close_to_pillows(real_data, kind, bound):
    files = sorted((real_data / "photos" / "imagenet1k_sample" / "val").rglob("*.*"))[:6]
    differences = []
    for file in files:
        image = np.asarray(Image.open(file).convert("RGB"))
        out = np.empty((160, 160, 3), np.uint8)
        resize_antialiased(image, WHOLE, out, kind)
        differences.append(np.abs(out.astype(int) - pillows(image, WHOLE, (160, 160), kind)).mean())
    assert len(differences) == 6
    assert np.mean(differences) < bound


def test_area_is_pillows_box_filter():
    out = np.empty((36, 48, 3), np.uint8)
    resize_antialiased(probe_image(), WHOLE, out, "area")
    assert np.abs(out.astype(int) - pillows(probe_image(), WHOLE, (48, 36), "area")).max() <= 1


@pytest.mark.parametrize("kind", FILTERS)
def test_a_resize_to_the_same_size_changes_nothing(kind):
    image = noise(32, 40)
    out = np.empty_like(image)
    resize_antialiased(image, WHOLE, out, kind)
    assert np.array_equal(out, image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (3, 5000), (2, 3)])
@pytest.mark.parametrize("kind", FILTERS)
def test_extreme_shapes_keep_a_flat_colour(shape, kind):
    image = np.full((*shape, 3), (20, 150, 240), np.uint8)
    out = np.zeros((24, 17, 3), np.uint8)
    resize_antialiased(image, WHOLE, out, kind)
    assert np.abs(out.astype(int) - (20, 150, 240)).max() <= 1


def test_noise_is_averaged_where_one_side_shrinks_and_the_other_grows():
    out = np.empty((64, 64, 3), np.uint8)
    resize_into(noise(32, 64 * 16), out)
    assert out.std() < 25  # sampling alone would leave more than 50


@pytest.mark.parametrize(("source", "low", "high"), [(121, 40, 74), (150, 20, 40), (256, 10, 25)])
def test_noise_is_averaged_from_a_twofold_shrink_on(source, low, high):
    out = np.empty((64, 64, 3), np.uint8)
    resize_into(noise(source, source), out)
    assert low < out.std() < high


def test_what_surrounds_the_box_reaches_into_an_antialiased_edge_as_in_pillow():
    image = np.zeros((96, 192, 3), np.uint8)
    image[:, :24] = 255
    out = np.empty((24, 40, 3), np.uint8)
    box = (24 / 192, 0.0, 160 / 192, 1.0)
    resize_antialiased(image, box, out, "bilinear")
    theirs = pillows(image, box, (40, 24), "bilinear")
    assert theirs[:, 0].min() > 25
    assert np.abs(out.astype(int) - theirs).max() <= 12


@pytest.mark.parametrize("size", [(40, 50), (20, 25), (21, 26), (80, 90), (10, 90)])
def test_the_training_rule_writes_where_it_is_told(size):
    batch = np.zeros((2, *size, 3), np.uint8)
    resize_into(smooth(40, 50), batch[1])
    assert batch[0].max() == 0
    reference = np.asarray(Image.fromarray(smooth(40, 50)).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(batch[1].astype(int) - reference).mean() < 2.0


@given(
    start=st.floats(0, 1),
    length=st.floats(1e-9, 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_a_box_inside_is_cut_without_copying(start, length, height, width):
    image = np.ones((height, width, 3), np.uint8)
    left = start * (1.0 - length)
    pixels = cut(image, (left, left, length, length))
    assert min(pixels.shape[:2]) >= 1
    assert np.shares_memory(pixels, image)
    assert abs(pixels.shape[1] - length * width) <= 1


@pytest.mark.parametrize(("dx", "dy"), [(4, -3), (-4, 4), (0, 2), (0, 0)])
def test_a_padded_box_shows_black_beyond_the_image(dx, dy):
    image = noise(32, 32) // 2 + 100
    pixels = cut(image, (dx / 32, dy / 32, 1.0, 1.0))
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    assert np.array_equal(pixels, padded[4 + dy : 36 + dy, 4 + dx : 36 + dx])

"""The common corruptions: golden images, formulas written again, any size, the same for the same seed and id.

`python -m tests.metrics.corruptions.test_corruptions` writes tests/golden/corruptions.json anew.
"""

from __future__ import annotations

import colorsys
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from buttress.metrics.corruptions import COMMON, CORRUPTIONS, EXTRA, SEVERITIES, corrupt
from buttress.metrics.corruptions.blur import _scattered, along_a_line, disk, zoomed
from buttress.metrics.corruptions.digital import brightness, contrast, pixelate, saturate
from buttress.metrics.corruptions.noise import impulse_noise, shot_noise
from buttress.metrics.corruptions.weather import plasma

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "corruptions.json"
BLURS = ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur")


def picture(height: int = 96, width: int = 96) -> NDArray[np.uint8]:
    """Slopes, a disk and stripes in colour, with black and white in it."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    red, green = 255 * rows / (height - 1), 255 * columns / (width - 1)
    blue = 127 + 120 * np.sin(columns / 3)
    image = np.stack([red, green, blue], axis=2)
    image[(rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 5) ** 2] = (250, 250, 250)
    image[: height // 8] = 0
    return image.astype(np.uint8)


def seen(name: str, severity: int) -> list[int]:
    """The means of 6 x 6 tiles of the corrupted picture."""
    tiles = cv2.resize(
        corrupt(picture(), name, severity, seed=7, id_hash=2**63 + 5), (6, 6), interpolation=cv2.INTER_AREA
    )
    return [int(value) for value in tiles.ravel()]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_there_are_fifteen_and_four():
    assert (len(COMMON), len(EXTRA), len(SEVERITIES)) == (15, 4, 5)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_golden_images(name):
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    for severity in SEVERITIES:
        assert np.abs(np.subtract(seen(name, severity), golden[f"{name}-{severity}"])).max() <= 1, severity


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("height", "width"), [(48, 67), (33, 32), (230, 224)])
def test_any_size_and_no_image_is_changed_in_place(name, height, width):
    image = picture(height, width)
    before = image.copy()
    for severity in SEVERITIES:
        changed = corrupt(image, name, severity, seed=0, id_hash=1)
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
    assert not np.array_equal(changed, image)  # a light blur of few pixels may change nothing
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seed_and_id_decide_it_alone(name):
    image = picture(40, 40)
    one = corrupt(image, name, 3, seed=1, id_hash=5)
    for other in (name, *CORRUPTIONS):
        corrupt(image, other, 2, seed=1, id_hash=6)
    assert np.array_equal(corrupt(image, name, 3, seed=1, id_hash=5), one)
    fixed = {"gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "saturate", "contrast", "pixelate"}
    for changed in (corrupt(image, name, 3, seed=2, id_hash=5), corrupt(image, name, 3, seed=1, id_hash=6)):
        assert np.array_equal(changed, one) == (name in fixed | {"jpeg_compression"})


@pytest.mark.parametrize("name", BLURS)
def test_a_blur_leaves_an_even_image_as_it_is(name):
    image = np.full((50, 60, 3), 117, np.uint8)
    for severity in SEVERITIES:
        assert np.abs(corrupt(image, name, severity, seed=0, id_hash=0).astype(int) - 117).max() <= 1


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "contrast", "defocus_blur"]
)
def test_severity_is_worse_and_worse(name):
    image = picture(112, 112)
    away = [
        np.mean(
            [
                np.abs(corrupt(image, name, severity, seed=0, id_hash=each) - image.astype(float)).mean()
                for each in range(9)
            ]
        )
        for severity in SEVERITIES
    ]
    assert away == sorted(away)


@pytest.mark.parametrize("name", ["snow", "spatter", "elastic_transform", "gaussian_blur", "fog"])
def test_an_image_of_another_size_is_changed_as_much(name):
    """Of smooth slopes: the mean change in levels at 96 and at 448 pixels, against that at 224."""
    changes = []
    for side in (96, 224, 448):
        rows, columns = np.mgrid[:side, :side].astype(np.float32) / side
        slopes = 127 + 90 * np.stack([np.sin(7 * rows), np.sin(9 * columns), np.cos(8 * (rows + columns))], axis=2)
        image = slopes.astype(np.uint8)
        away = [
            np.abs(corrupt(image, name, severity, seed=0, id_hash=each).astype(float) - image).mean()
            for severity in (2, 3, 5)
            for each in range(4)
        ]
        changes.append(np.mean(away))
    assert changes[0] == pytest.approx(changes[1], rel=0.25)
    assert changes[2] == pytest.approx(changes[1], rel=0.25)


@pytest.mark.parametrize("reach", [1, 3])
def test_glass_is_the_loop_over_pixels_that_it_says_it_is(reach):
    height, width = 14, 11
    down, right = rng().integers(-reach, reach, (2, height, width))
    plane = np.arange(height * width).reshape(height, width)
    for row in range(height - reach, reach, -1):
        for column in range(width - reach, reach, -1):
            plane[row, column] = plane[row + down[row, column], column + right[row, column]]
    assert np.array_equal(_scattered(height, width, reach, rng()).reshape(height, width), plane)


def test_a_line_of_zero_degrees_blurs_rows_alone():
    image = np.zeros((9, 40), np.float32)
    image[4, 20] = 1
    blurred = along_a_line(image, 5, 3, 0)
    weights = np.exp(-(np.arange(11) ** 2) / 18)
    assert blurred[4, 10:21][::-1] == pytest.approx(weights / weights.sum(), abs=1e-6)
    assert blurred.sum() == pytest.approx(1, abs=1e-5)


def test_a_zoom_of_one_changes_nothing_and_of_two_shows_the_middle():
    image = picture(32, 32).astype(np.float32)
    assert zoomed(image, 1.0) == pytest.approx(image, abs=0.01)
    larger = zoomed(image, 2.0)
    assert larger[0, 0] == pytest.approx(image[8, 8], abs=0.01)
    assert larger[-1, -1] == pytest.approx(image[23, 23], abs=0.01)


def test_a_disk_is_even_and_whole():
    kernel = disk(6, 0.5)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert np.allclose(kernel, kernel[::-1, ::-1], atol=1e-7)
    assert kernel[8, 8] == pytest.approx(1 / (np.pi * 36), rel=0.01)
    small = disk(0.5, 0.1)
    assert small[8, 8] > 0.9


def test_brightness_and_saturation_are_those_of_hsv():
    image = rng().random((4, 5, 3), np.float32)
    image[0, 0], image[0, 1] = 0, 0.5  # black, and grey that has no hue
    for severity in SEVERITIES:
        times, plus = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
        brighter, coloured = brightness(image, severity, rng()), saturate(image, severity, rng())
        for place in np.ndindex(4, 5):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[place].tolist())
            expected = colorsys.hsv_to_rgb(hue, saturation, min(value + severity / 10, 1))
            assert brighter[place] == pytest.approx(expected, abs=1e-5)
            expected = colorsys.hsv_to_rgb(hue, min(saturation * times + plus, 1), value)
            assert coloured[place] == pytest.approx(expected, abs=1e-5)


def test_noise_has_the_size_it_should():
    image = np.full((200, 200, 3), 0.5, np.float32)
    assert shot_noise(image, 3, rng()).std() == pytest.approx((0.5 / 12) ** 0.5, rel=0.02)
    hit = impulse_noise(image, 5, rng())
    assert (hit == 0).mean() == pytest.approx(0.135, abs=0.005)
    assert (hit == 1).mean() == pytest.approx(0.135, abs=0.005)
    assert contrast(picture() / np.float32(255), 5, rng()).std() < 0.05


def test_pixels_are_squares():
    squares = pixelate(picture(80, 80) / np.float32(255), 5, rng())
    assert np.array_equal(squares[::4, ::4], squares[3::4, 3::4])


def test_plasma_spans_all_heights_and_decay_smooths_it():
    rough, smooth = (plasma(64, 60, decay, rng()) for decay in (1.4, 2.5))
    for clouds in (rough, smooth):
        assert clouds.shape == (64, 60)
        assert 0 <= clouds.min() <= clouds.max() <= 1
    assert np.abs(np.diff(smooth, axis=0)).mean() < np.abs(np.diff(rough, axis=0)).mean() / 2


if __name__ == "__main__":
    told = {f"{name}-{severity}": seen(name, severity) for name in CORRUPTIONS for severity in SEVERITIES}
    GOLDEN.write_text("{\n" + ",\n".join(f'"{key}": {value}' for key, value in told.items()) + "\n}\n")

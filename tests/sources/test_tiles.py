"""Any box of a tiled JPEG, from its tiles alone, is that of the whole image, bit by bit."""

from __future__ import annotations

import io
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from buttress.sources.decode import decode, image_size
from buttress.sources.source import UndecodableImage
from buttress.sources.tiles import Tiles, tile_mcus, with_index

SAMPLINGS = {
    "4:4:4": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, 8),
    "4:2:2": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422, 16),
    "4:2:0": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, 16),
    "4:4:0": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440, 8),
    "4:1:1": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411, 32),
}


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Colours that change from pixel to pixel, so that a neighbour too many or too few shows."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 5 + 2, width // 5 + 2, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, 3)
    noisy: np.ndarray = np.clip(smooth + generator.integers(-40, 41, smooth.shape), 0, 255).astype(np.uint8)
    return noisy


def jpeg(
    pixels: np.ndarray, mcus: int, sampling: int = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, quality: int = 90
) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    options += [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, mcus]
    encoded: bytes = cv2.imencode(".jpg", pixels, options)[1].tobytes()
    return encoded


@st.composite
def cases(draw):
    """(width, height, sampling, MCUs a tile, box)."""
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 120))
    sampling = draw(st.sampled_from(sorted(SAMPLINGS)))
    mcus = -(-width // SAMPLINGS[sampling][1])
    tile = draw(st.sampled_from([k for k in range(1, mcus + 1) if mcus % k == 0]))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    return width, height, sampling, tile, (left, top, right, bottom)


@given(cases(), st.integers(20, 100))
@example((35, 20, "4:2:0", 1, (34, 0, 35, 1)), 90)  # the last column of MCUs shows two samples of chroma
@example((99, 20, "4:1:1", 1, (98, 3, 99, 4)), 90)
@example((1, 1, "4:2:0", 1, (0, 0, 1, 1)), 90)
@settings(max_examples=300, deadline=None)
def test_a_box_of_tiles_is_that_of_the_whole(case, quality):
    width, height, sampling, tile, (left, top, right, bottom) = case
    data = with_index(jpeg(picture(width, height), tile, SAMPLINGS[sampling][0], quality))
    tiles = Tiles.of(data)
    assert tiles is not None and tiles.size == image_size(data) == (width, height)
    box = tiles.pixels(left, top, right, bottom)
    np.testing.assert_array_equal(box, decode(data)[top:bottom, left:right])


@given(st.integers(1, 90), st.integers(1, 60), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_grey_jpegs_too(width, height, mcus):
    wanted = next(k for k in range(mcus, 0, -1) if -(-width // 8) % k == 0)
    buffer = io.BytesIO()
    Image.fromarray(picture(width, height)[..., 0]).save(buffer, "JPEG", quality=90, restart_marker_blocks=wanted)
    data = with_index(buffer.getvalue())
    tiles = Tiles.of(data)
    assert tiles is not None
    np.testing.assert_array_equal(tiles.pixels(width - 1, height // 2, width, height), decode(data)[height // 2 :, -1:])


def test_the_index_changes_no_pixel_and_every_reader_passes_over_it():
    plain = jpeg(picture(130, 70), 3)
    data = with_index(plain)
    assert data != plain and with_index(data) == data, "one index is enough"
    for content in (plain, data):
        np.testing.assert_array_equal(decode(content), decode(plain))
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (130, 70) and np.abs(np.asarray(image).astype(int) - decode(plain)).max() <= 2


def test_what_is_no_tiled_jpeg_has_no_tiles():
    pixels = picture(130, 70)
    progressive = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 3])[1]
    others = [
        jpeg(pixels, 0),
        jpeg(pixels, 4),  # nine MCUs a row
        progressive.tobytes(),
        cv2.imencode(".png", pixels)[1].tobytes(),
        b"",
        b"\xff\xd8\xff",
        jpeg(pixels, 3)[:200],
    ]
    for data in others:
        assert with_index(data) == data
        assert Tiles.of(data) is None
    assert Tiles.of(jpeg(pixels, 3)) is None, "tiled, but nobody says where"


def test_an_index_that_does_not_fit_is_not_believed():
    data = with_index(jpeg(picture(130, 70), 3))
    assert Tiles.of(data) is not None
    for cut in range(20, 700, 7):
        assert Tiles.of(data[:cut]) is None
    assert Tiles.of(data + b"\0") is None
    size = int.from_bytes(data[39:41], "big")
    lied = data[:39] + (size + 1).to_bytes(2, "big") + data[41:]
    assert Tiles.of(lied) is None


@given(st.binary(max_size=80), st.integers(0, 700))
@settings(max_examples=200, deadline=None)
def test_damage_gives_pixels_or_an_error_and_nothing_else(noise, place):
    data = bytearray(with_index(jpeg(picture(130, 70), 3)))
    data[place : place + len(noise)] = noise
    tiles = Tiles.of(bytes(data))
    if tiles is None:
        return
    with suppress(UndecodableImage):
        assert tiles.pixels(0, 0, 1, 1).shape == (1, 1, 3)


def test_a_header_that_claims_too_many_pixels_is_left_to_decode():
    data = with_index(jpeg(picture(16, 8), 1))
    frame = data.index(b"\xff\xc0") + 5
    bomb = data[:frame] + b"\xff\xff\xff\xff" + data[frame + 4 :]
    assert Tiles.of(bomb) is None
    with pytest.raises(UndecodableImage, match="65535 x 65535 pixels"):
        decode(bomb)


def test_tiles_are_four_mcus_wide_where_that_divides_a_row():
    assert [tile_mcus(mcus) for mcus in (20, 27, 26, 25, 29, 1)] == [4, 3, 2, 1, 1, 1]


@pytest.mark.parametrize("pixels", [picture(64, 64), np.zeros((64, 64, 3), np.uint8)])
def test_tiles_of_one_colour_are_tiles_too(pixels):
    data = with_index(jpeg(pixels, 2, quality=5))
    tiles = Tiles.of(data)
    assert tiles is not None
    np.testing.assert_array_equal(tiles.pixels(30, 30, 40, 40), decode(data)[30:40, 30:40])

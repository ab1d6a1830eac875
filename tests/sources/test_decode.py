"""Decoding: every kind of image comes out upright RGB; whatever is cut, damaged or no image is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from buttress.sources import Source, UndecodableImage, decode, image_size, open_source
from buttress.sources.decode import MAX_PIXELS


def photo(width: int = 40, height: int = 24) -> Image.Image:
    """Smooth, and different in all four corners, so that rotations and bad colours show."""
    across = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([across, down, (across + down) / 4], axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encoded_files(source: Source) -> Iterator[bytes]:
    for index in range(len(source)):
        data = source[index].data
        assert isinstance(data, bytes)
        yield data


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def difference(left: np.ndarray, right: np.ndarray) -> int:
    assert left.shape == right.shape
    return int(np.abs(left.astype(int) - right).max())


def png16(pixels: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG, which Pillow cannot write for colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_common_jpegs_match_pillow(mode: str, progressive: bool) -> None:
    data = encoded(photo().convert(mode), "JPEG", progressive=progressive)
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert difference(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("WEBP", "RGB"), ("TIFF", "RGB")]
)
def test_exif_orientation_is_applied(kind: str, mode: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(photo().convert(mode), kind, exif=exif(orientation), **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert difference(decode(data), np.asarray(upright)) <= 1
    assert image_size(data) == upright.size == ((24, 40) if orientation > 4 else (40, 24))


def test_orientation_in_big_endian_exif() -> None:
    block = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    plain = encoded(photo(), "JPEG")
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    assert image_size(data) == (24, 40)
    assert difference(decode(data), np.rot90(decode(plain), -1)) == 0


@pytest.mark.parametrize("value", [0, 9, 4000])
def test_nonsense_orientation_means_none(value: int) -> None:
    data = encoded(photo(), "JPEG", exif=exif(value))
    assert decode(data).shape == (24, 40, 3)


def test_alpha_is_laid_over_white() -> None:
    pixels = np.array([[[200, 0, 50, 0], [200, 0, 50, 255], [200, 0, 50, 128]]], np.uint8)
    expected = np.array([[[255, 255, 255], [200, 0, 50], [227, 127, 152]]])
    assert np.array_equal(decode(encoded(Image.fromarray(pixels), "PNG")), expected)
    assert np.array_equal(decode(pixels), expected)


def test_palette_and_its_transparent_colour() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert decode(encoded(image, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert decode(encoded(image, "PNG", transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert decode(encoded(image, "PNG", transparency=b"\x00\xff")).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    assert decode(encoded(image, "GIF", transparency=0)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_grey_with_alpha_and_with_a_transparent_value() -> None:
    assert decode(encoded(Image.new("LA", (1, 1), (100, 0)), "PNG")).tolist() == [[[255] * 3]]
    assert decode(encoded(Image.new("LA", (1, 1), (100, 255)), "PNG")).tolist() == [[[100] * 3]]
    assert decode(encoded(Image.new("L", (1, 1), 7), "PNG", transparency=7)).tolist() == [[[255] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_one_bit(kind: str) -> None:
    image = Image.new("1", (3, 2))
    image.putpixel((2, 1), 1)
    expected = np.zeros((2, 3, 3), np.uint8)
    expected[1, 2] = 255
    assert np.array_equal(decode(encoded(image, kind)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind: str) -> None:
    data = encoded(photo().convert("CMYK"), kind, **({"quality": 95} if kind == "JPEG" else {}))
    assert difference(decode(data), np.asarray(photo())) <= 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    wide = np.array([[0, 257, 1000, 32768, 65535]], np.uint16)
    data = encoded(Image.fromarray(wide), kind)
    assert decode(data)[0, :, 1].tolist() == [0, 1, 3, 128, 255]


def test_big_endian_16_bit_tiff() -> None:
    entries = [(256, 2), (257, 1), (258, 16), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 4)]
    body = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    head = b"MM\0*" + struct.pack(">IH", 8, len(entries)) + body + struct.pack(">I", 0)
    data = head + struct.pack(">HH", 300, 65535)
    assert decode(data)[0, :, 0].tolist() == [1, 255]


def test_16_bit_colour() -> None:
    wide = np.array([[[0, 32768, 65535], [257, 511, 512]]], np.uint16)
    assert decode(png16(wide, 2)).tolist() == [[[0, 128, 255], [1, 1, 2]]]
    assert decode(wide).tolist() == [[[0, 128, 255], [1, 1, 2]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pixels_are_refused_by_name(mode: str) -> None:
    with pytest.raises(UndecodableImage, match="32-bit pixels"):
        decode(encoded(Image.new(mode, (2, 2)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (9, 5), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decode(data), np.full((5, 9, 3), (255, 0, 0), np.uint8))
    assert image_size(data) == (9, 5)


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1), (3, 2, 3), (3, 2, 4)])
def test_arrays_of_every_layout(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 255, np.uint8)
    pixels[..., :3] = 90
    expected = np.full((3, 2, 3), 90)
    assert np.array_equal(decode(pixels), expected)
    assert image_size(pixels) == (2, 3)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2), (1, 3, 2, 3), (0, 2), (3, 0, 3)])
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UndecodableImage, match="is not HW"):
        decode(np.zeros(shape, np.uint8))


def test_float_arrays_are_refused() -> None:
    with pytest.raises(UndecodableImage, match="float32"):
        decode(np.zeros((2, 2, 3), np.float32))


@pytest.mark.parametrize(
    "data", [b"", b"hello, this is text\n" * 9, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", bytes(999)]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(UndecodableImage) as caught:
        decode(data)
    assert "\n" not in str(caught.value)
    with pytest.raises(UndecodableImage):
        image_size(data)


CUT = {
    "jpeg": lambda: encoded(photo(), "JPEG"),
    "progressive": lambda: encoded(photo(), "JPEG", progressive=True),
    "cmyk": lambda: encoded(photo().convert("CMYK"), "JPEG"),
    "png": lambda: encoded(photo(), "PNG"),
    "webp": lambda: encoded(photo(), "WEBP"),
    "gif": lambda: encoded(photo(), "GIF"),
    "bmp": lambda: encoded(photo(), "BMP"),
    "tiff": lambda: encoded(photo(), "TIFF"),
    "ppm": lambda: encoded(photo(), "PPM"),
}


@pytest.mark.parametrize("kind", CUT)
def test_a_file_cut_anywhere_in_its_image_is_refused(kind: str) -> None:
    whole = CUT[kind]()
    decode(whole)
    tail = {"png": 21, "gif": 3}.get(kind, 1)  # their last bytes (PNG: checksums and IEND, GIF: trailer) hold no pixel
    for length in range(0, len(whole) - tail, max(1, len(whole) // 150)):
        with pytest.raises(UndecodableImage):
            decode(whole[:length])


def test_a_cut_jpeg_with_a_whole_thumbnail_is_refused() -> None:
    thumbnail = b"Exif\0\0" + encoded(photo(8, 8), "JPEG")
    plain = encoded(photo(), "JPEG")
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + plain[2:]
    assert np.array_equal(decode(data), decode(plain))
    assert image_size(data) == (40, 24)
    with pytest.raises(UndecodableImage, match="truncated JPEG"):
        decode(data[:-100])


def test_junk_behind_a_jpeg_and_between_its_segments_is_harmless() -> None:
    plain = encoded(photo(), "JPEG")
    assert np.array_equal(decode(plain + b"\0junk" * 50), decode(plain))
    filled = plain[:2] + b"\xff\xff\xff" + plain[2:]  # fill bytes before a marker are legal
    assert image_size(filled) == (40, 24)
    assert np.array_equal(decode(filled), decode(plain))


def test_a_header_that_claims_too_many_pixels_is_refused() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    jpeg = bytearray(encoded(photo(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    png = bytearray(encoded(photo(), "PNG"))
    png[16:24] = struct.pack(">II", side, side)
    for data in (
        bytes(jpeg),
        bytes(png),
        b"P6 %d %d 255\n" % (side, side) + bytes(99),
        b"P6 60000 60000 255\n" + bytes(9),
    ):
        with pytest.raises(UndecodableImage):
            decode(data)


def test_postscript_is_never_run() -> None:
    with pytest.raises(UndecodableImage, match="unknown format"):
        decode(encoded(photo(), "EPS"))


@pytest.mark.parametrize("kind", CUT)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_decode_or_are_refused(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(CUT[kind]())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, min(len(damaged), 400) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode(bytes(damaged))
    except UndecodableImage:
        return
    assert pixels.dtype == np.uint8
    assert (pixels.shape[1], pixels.shape[0]) == image_size(bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"]),
    mode=st.sampled_from(["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16"]),
    orientation=st.integers(0, 9),
    progressive=st.booleans(),
)
def test_image_size_is_the_size_of_what_decodes(
    width: int, height: int, kind: str, mode: str, orientation: int, progressive: bool
) -> None:
    image = photo(width, height).convert("L" if mode == "I;16" else mode)
    options = {"exif": exif(orientation)} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    try:
        data = encoded(image.convert("I;16") if mode == "I;16" else image, kind, progressive=progressive, **options)
    except (OSError, KeyError, ValueError):  # a mode that this format does not hold
        data = encoded(image.convert("RGB"), kind, **options)
    assert decode(data).shape == (*image_size(data)[::-1], 3)


def test_real_photos_match_pillow(real_data: Path) -> None:
    source = open_source(f"folder:{real_data}/photos/imagenet1k_sample/val")
    for data in encoded_files(source):
        image = Image.open(io.BytesIO(data))
        assert image_size(data) == image.size
        assert difference(decode(data), np.asarray(image.convert("RGB"))) <= 2
    assert len(source) == 200


def test_every_grey_photo_decodes_to_three_equal_channels(real_data: Path) -> None:
    grey = 0
    for folder in ("imagenette224/train", "imagenette224/val", "imagenet1k_sample/val"):
        source = open_source(f"folder:{real_data}/photos/{folder}")
        for data in encoded_files(source):
            if Image.open(io.BytesIO(data)).mode == "L":
                grey += 1
                assert np.ptp(decode(data), axis=2).max() == 0
    assert grey == 31

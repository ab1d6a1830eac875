"""From encoded bytes (or a stored array) to upright RGB uint8 pixels, and the size of those without decoding.

Common JPEGs go through OpenCV, all else through Pillow. `image_size(data)` always equals what `decode(data)` returns:
both take the rotation from one place (`header.py`), never from a decoder's own opinion of the EXIF block.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from buttress.sources.header import JPEG_START, MAX_PIXELS, PNG_START, read_jpeg, read_png
from buttress.sources.source import UndecodableImage
from buttress.sources.tiles import decode_jpeg

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

__all__ = ["MAX_PIXELS", "UndecodableImage", "decode", "image_size"]

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # not EPS and others that start programs
_FULL_TURN = {1: (False, None), 2: (False, 1), 3: (False, -1), 4: (False, 0)}
_QUARTER_TURN = {5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0)}
_TURNS: dict[int, tuple[bool, int | None]] = _FULL_TURN | _QUARTER_TURN  # EXIF orientation -> transpose?, cv2.flip code


def decode(data: bytes | NDArray[Any]) -> NDArray[np.uint8]:
    """The pixels of an image, upright: RGB uint8 [H, W, 3], contiguous. Treat them as read-only.

    Transparent pixels are laid over white; an animation gives its first frame; 16-bit values keep their high byte;
    CMYK is converted without a colour profile. Corrupt entropy data inside a whole JPEG decodes as libjpeg recovers it.

    Args:
        data: an encoded file (JPEG, PNG, WebP, BMP, TIFF, GIF, PPM/PGM), or an array [H, W], [H, W, 1], [H, W, 3]
            or [H, W, 4] of uint8 or uint16. An RGB uint8 array comes back as it is, not copied.

    Raises:
        UndecodableImage: not an image, truncated, damaged, or of more than `MAX_PIXELS` pixels.
    """
    if isinstance(data, np.ndarray):
        return _from_array(data)
    if data.startswith(JPEG_START):
        header = read_jpeg(data)
        _check_pixels(header.width, header.height)
        # FF D9 cannot occur inside entropy-coded data, so without one behind the header the file was cut
        if not data.endswith(b"\xff\xd9") and data.find(b"\xff\xd9", header.scan) < 0:
            raise UndecodableImage("truncated JPEG: no end-of-image marker")
        pixels = decode_jpeg(np.frombuffer(data, np.uint8)) if header.common else None
        # what OpenCV refuses, Pillow may still read, and where it does not its reason is better than none
        return _turned(_decode_with_pillow(data)[0] if pixels is None else pixels, header.orientation)
    if data.startswith(PNG_START):
        png = read_png(data)
        _check_pixels(png.width, png.height)
        return _turned(_decode_with_pillow(data)[0], png.orientation)
    return _turned(*_decode_with_pillow(data))


def image_size(data: bytes | NDArray[Any]) -> tuple[int, int]:
    """(width, height) of what `decode(data)` returns, read from the header alone.

    Raises: `UndecodableImage` where the header cannot be read. A file that is cut later on still has a size.
    """
    if isinstance(data, np.ndarray):
        return int(data.shape[1]), int(data.shape[0])
    if data.startswith(JPEG_START):
        width, height, orientation = read_jpeg(data)[:3]
    elif data.startswith(PNG_START):
        width, height, orientation = read_png(data)
    else:
        width, height, orientation = _size_with_pillow(data)
    return (height, width) if _TURNS[orientation][0] else (width, height)


def _decode_with_pillow(data: bytes) -> tuple[NDArray[np.uint8], int]:
    """RGB pixels as stored, and the orientation (1..8) that is still to be applied."""
    with _opened_with_pillow(data) as image:
        _check_pixels(*image.size)
        orientation = _pillow_orientation(image)
        image.load()
        return rgb_of_pillow(image), orientation


def _size_with_pillow(data: bytes) -> tuple[int, int, int]:
    """(width, height, orientation) from the header."""
    with _opened_with_pillow(data) as image:
        return *image.size, _pillow_orientation(image)


def _pillow_orientation(image: PillowImage) -> int:
    # JPEG and PNG were read by our own scan; Pillow turns a TIFF by itself and reports the turned size
    if image.format not in ("WEBP", "GIF"):
        return 1
    orientation = image.getexif().get(0x0112, 1)
    return orientation if orientation in _TURNS else 1


def rgb_of_pillow(image: PillowImage) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of a loaded Pillow image of any mode, as stored: rotation is not applied.

    Raises: `UndecodableImage` for 32-bit pixels.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow's own conversion clips 16 bits at 255; (and it holds 16-bit PGM in 32-bit pixels)
        return _from_array(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        raise UndecodableImage(f"32-bit pixels ({image.format}) have no agreed range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        return _over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _from_array(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    pixels_HWC = pixels[..., None] if pixels.ndim == 2 else pixels
    channels = pixels_HWC.shape[2] if pixels_HWC.ndim == 3 else 0
    if pixels.dtype != np.uint8 or channels not in (1, 3, 4) or 0 in pixels.shape:
        raise UndecodableImage(f"an array {pixels.dtype}{list(pixels.shape)} is not HW, HWC1, HWC3 or HWC4 of uint8")
    if channels == 4:
        return _over_white(pixels_HWC)
    return np.ascontiguousarray(pixels_HWC if channels == 3 else np.repeat(pixels_HWC, 3, axis=2))


def _over_white(rgba_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """alpha * colour + (1 - alpha) * white, rounded; x / 255 is (x + x / 256) / 256 exactly after adding 128."""
    alpha = rgba_HWC[..., 3:].astype(np.uint16)
    scaled = rgba_HWC[..., :3] * alpha + 255 * (255 - alpha) + np.uint16(128)
    return ((scaled + (scaled >> 8)) >> 8).astype(np.uint8)


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Upright pixels from stored ones."""
    transpose, flip = _TURNS[orientation]
    if not transpose and flip is None:
        return pixels
    import cv2

    turned: Any = cv2.transpose(pixels) if transpose else pixels
    return np.asarray(turned if flip is None else cv2.flip(turned, flip))


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UndecodableImage(f"its header claims {width} x {height} pixels, more than {MAX_PIXELS}")


@contextmanager
def _opened_with_pillow(data: bytes) -> Iterator[PillowImage]:
    """The file as a Pillow image; what Pillow raises over it, in the body too, becomes `UndecodableImage`."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise UndecodableImage("an empty file (0 bytes)")
    # its plugins raise SyntaxError for bad headers, and the others where a field is nonsense
    damaged = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)
    # the TIFF plugin warns about each odd tag; elsewhere the filters stay alone, they belong to all threads
    quiet = warnings.catch_warnings(action="ignore") if data[:2] in (b"II", b"MM") else nullcontext()
    try:
        with quiet, Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            yield image
    except UnidentifiedImageError as failure:
        raise UndecodableImage("not an image (unknown format)") from failure
    except (*damaged, Image.DecompressionBombError, Image.DecompressionBombWarning) as failure:
        reason = str(failure).partition("\n")[0]
        raise UndecodableImage(f"truncated or damaged image ({reason})") from failure

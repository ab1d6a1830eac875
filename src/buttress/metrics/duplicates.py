"""Images that a source holds more than once: the very same file, or the same picture in another size or compression.

The same picture is found in two steps. A 64-bit perceptual hash (pHash: the signs, about their median, of the 8 x 8
lowest DCT coefficients of the picture at 32 x 32 grey pixels) names pairs that differ in at most 6 bits; of those the
ones stay whose 32 x 32 RGB pixels correlate by at least 0.9. Why these figures: benchmarks/duplicates.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.sources import Source, UndecodableImage, content_hash, decode
from buttress.terminal import progress

BITS = 6  # a re-compressed or resized picture differs in fewer; no two of 2,338 distinct photos differ in 8 or fewer
ALIKE = 0.9
FLAT = 2.0  # grey levels: a picture that varies by less has no content to compare
_SIDE, _LOWEST = 32, 8
_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Pair:
    """Two samples of a source, by their places in it, and how alike their pictures are, 0.9..1."""

    first: int
    second: int
    alike: float


def same_files(hashes_N: NDArray[np.uint64]) -> list[list[int]]:
    """Places that share a content hash, ascending: the groups of two and more, in order of their first place.

    Args:
        hashes_N: content hash of every sample; 0 = not known.
    """
    order_N = np.argsort(hashes_N, kind="stable")
    starts = np.flatnonzero(np.diff(hashes_N[order_N])) + 1
    groups = [group.tolist() for group in np.split(order_N, starts) if len(group) > 1 and hashes_N[group[0]] != 0]
    return sorted(groups)


def missing_hashes(source: Source, hashes_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The content hashes with those that are 0 filled in from the files; 0 stays where a file cannot be read."""
    filled_N = hashes_N.copy()
    for index in np.flatnonzero(hashes_N == 0).tolist():
        try:
            filled_N[index] = content_hash(source[index].data)
        except UndecodableImage:
            continue
    return filled_N


def same_pictures(source: Source, places: NDArray[np.int64]) -> list[Pair]:
    """Pairs of pictures that are the same but for size, compression or brightness, the most alike first.

    Decodes every image once and the candidates once more. Every pair within `BITS` is found.

    Args:
        source: the images.
        places: which of them to compare; those that cannot be decoded or are of one colour are left out.
    """
    hashes_P = np.zeros(len(places), np.uint64)
    there_P = np.zeros(len(places), bool)
    with progress("comparing images", len(places), "images") as bar:
        for number, index in enumerate(places.tolist()):
            bar.advance()
            pixels = _pixels(source, index)
            if pixels is not None:
                hashes_P[number], there_P[number] = picture_hash(pixels), True
    kept = places[there_P]
    found = []
    for first, second in close_pairs(hashes_P[there_P], BITS):
        alike = _correlation(source, int(kept[first]), int(kept[second]))
        if alike >= ALIKE:
            found.append(Pair(int(kept[first]), int(kept[second]), alike))
    return sorted(found, key=lambda pair: (-pair.alike, pair.first, pair.second))


def picture_hash(pixels_HWC: NDArray[np.uint8]) -> int:
    """pHash of an RGB image, 64 bits: bit 8 r + c says whether DCT coefficient (r, c) is above the median of the others
    than (0, 0).
    """
    import cv2

    grey_HW = cv2.cvtColor(_small(pixels_HWC), cv2.COLOR_RGB2GRAY).astype(np.float32)
    lowest: NDArray[Any] = cv2.dct(grey_HW)[:_LOWEST, :_LOWEST].ravel()
    return int.from_bytes(np.packbits(lowest > np.median(lowest[1:]), bitorder="little").tobytes(), "little")


def close_pairs(hashes_N: NDArray[np.uint64], bits: int) -> Iterator[tuple[int, int]]:
    """Every pair of places, once, whose hashes differ in at most `bits` bits, 0..63; the lower place first.

    Cut into bits + 1 pieces, two such hashes are equal in at least one piece; so only those are compared, and a pair
    is given by the first of its equal pieces.
    """
    edges = np.linspace(0, 64, bits + 2).astype(int).tolist()
    masks = [((1 << (high - low)) - 1) << low for low, high in pairwise(edges)]
    for number, mask in enumerate(masks):
        order_N = np.argsort(hashes_N & np.uint64(mask), kind="stable")
        piece_N = (hashes_N & np.uint64(mask))[order_N]
        starts = np.flatnonzero(np.diff(piece_N) != 0) + 1
        for places in np.split(order_N, starts):
            if len(places) > 1:
                yield from _close(hashes_N, np.sort(places), bits, masks[:number])


def _close(
    hashes_N: NDArray[np.uint64], places: NDArray[np.int64], bits: int, earlier: list[int]
) -> Iterator[tuple[int, int]]:
    """Pairs among places that are equal in one piece, but in none of the earlier ones."""
    ours = hashes_N[places]
    for start in range(0, len(places), _BLOCK):
        differing = ours[start : start + _BLOCK, None] ^ ours[None, start:]
        close = np.bitwise_count(differing) <= bits
        for mask in earlier:
            close &= (differing & np.uint64(mask)) != 0
        for row, column in np.argwhere(np.triu(close, 1)).tolist():
            yield int(places[start + row]), int(places[start + column])


def _pixels(source: Source, index: int) -> NDArray[np.uint8] | None:
    """The image at 32 x 32 RGB pixels, or none where there is nothing to compare."""
    try:
        small_HWC = _small(decode(source[index].data))
    except UndecodableImage:
        return None
    return small_HWC if float(small_HWC.std(axis=(0, 1)).max()) >= FLAT else None


def _small(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.resize(pixels_HWC, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _correlation(source: Source, first: int, second: int) -> float:
    small = [_pixels(source, index) for index in (first, second)]
    ours, theirs = (np.asarray(pixels, np.float64).ravel() for pixels in small)
    return float(np.corrcoef(ours, theirs)[0, 1])

"""The same file twice, and the same picture in two files."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.metrics.duplicates import close_pairs, missing_hashes, picture_hash, same_files, same_pictures
from buttress.sources import ArraySource, UndecodableImage, content_hash


def photo(seed: int, size: int = 96) -> np.ndarray:
    """Something with the smooth structure of a photo."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


class Pictures:
    """Images of different sizes; None cannot be decoded."""

    uri, classes = "pictures", None

    def __init__(self, images):
        self.images = images
        self.ids = [str(number) for number in range(len(images))]
        self.labels = np.full(len(images), -1, np.int32)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from buttress.sources import Sample

        if self.images[index] is None:
            raise UndecodableImage("gone")
        return Sample(self.ids[index], self.images[index], None)


def test_the_same_file_is_found_every_time_and_an_unknown_one_never():
    hashes = np.array([5, 0, 7, 5, 0, 2**64 - 1, 7, 5, 2**64 - 1, 9], np.uint64)
    assert same_files(hashes) == [[0, 3, 7], [2, 6], [5, 8]]
    assert same_files(np.zeros(0, np.uint64)) == []
    assert same_files(np.zeros(3, np.uint64)) == []


def test_files_that_the_store_does_not_know_are_hashed():
    images = np.stack([photo(0), photo(1), photo(0)])
    source = ArraySource(images, ids=["a", "b", "c"])
    known = np.array([content_hash(images[0]), 0, 0], np.uint64)
    filled = missing_hashes(source, known)
    assert same_files(filled) == [[0, 2]]
    assert known.tolist()[1:] == [0, 0]
    assert missing_hashes(Pictures([None]), np.zeros(1, np.uint64)).tolist() == [0]


near_hashes = st.lists(
    st.tuples(st.sampled_from([0, 0xDEADBEEF12345678, 2**64 - 1]), st.sets(st.integers(0, 63), max_size=9)), max_size=14
)


@settings(deadline=None, max_examples=200)
@given(near_hashes, st.integers(0, 8))
def test_every_pair_within_the_bits_is_found_once(flips, bits):
    hashes = [base ^ sum(1 << bit for bit in flipped) for base, flipped in flips]
    found = list(close_pairs(np.array(hashes, np.uint64), bits))
    expected = {
        (one, other)
        for one, other in itertools.combinations(range(len(hashes)), 2)
        if (hashes[one] ^ hashes[other]).bit_count() <= bits
    }
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_more_hashes_than_a_block_are_compared_too(monkeypatch):
    monkeypatch.setattr("buttress.metrics.duplicates._BLOCK", 3)
    hashes = np.repeat(np.array([1, 2, 1 << 40], np.uint64), [5, 1, 4])
    expected = {(a, b) for a, b in itertools.combinations(range(10), 2) if hashes[a] == hashes[b]}
    assert set(close_pairs(hashes, 0)) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: jpeg(pixels, 60),
        lambda pixels: cv2.resize(pixels, (60, 60), interpolation=cv2.INTER_AREA),
        lambda pixels: cv2.resize(pixels, (150, 130), interpolation=cv2.INTER_CUBIC),
        lambda pixels: np.clip(pixels.astype(int) * 0.9 + 12, 0, 255).astype(np.uint8),
    ],
    ids=["compressed", "smaller", "larger", "brighter"],
)
def test_the_same_picture_is_found_in_another_file(change):
    images = [photo(seed) for seed in range(12)]
    source = Pictures([*images, change(images[4])])
    pairs = same_pictures(source, np.arange(13))
    assert [(pair.first, pair.second) for pair in pairs] == [(4, 12)]
    assert 0.9 <= pairs[0].alike <= 1 + 1e-9


def test_other_pictures_flat_ones_and_undecodable_ones_are_not():
    flat = np.full((40, 40, 3), 90, np.uint8)
    source = Pictures([photo(1), photo(2), flat, flat + 1, None, None])
    assert same_pictures(source, np.arange(6)) == []
    negative = 255 - photo(1)
    assert same_pictures(Pictures([photo(1), negative]), np.arange(2)) == []


def test_only_the_named_places_are_compared():
    source = Pictures([photo(1), photo(2), jpeg(photo(1), 70), jpeg(photo(2), 70)])
    assert [(pair.first, pair.second) for pair in same_pictures(source, np.array([0, 1, 2]))] == [(0, 2)]


def test_the_hash_is_the_signs_of_the_lowest_coefficients():
    rows = np.cos(np.pi * (np.arange(32) + 0.5) * 2 / 32)  # coefficient (2, 0) alone
    pixels = np.repeat((128 + 100 * rows).astype(np.uint8)[:, None, None], 32, axis=1).repeat(3, axis=2)
    assert (picture_hash(pixels) >> (8 * 2)) & 1 == 1
    assert (picture_hash(255 - pixels) >> (8 * 2)) & 1 == 0

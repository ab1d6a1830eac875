"""Hashes are pinned by value: a store written today must be found again tomorrow."""

from __future__ import annotations

import unicodedata
from hashlib import blake2b
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from buttress.sources import ArraySource, Subset, content_hash, fingerprint, id_hash, id_hashes
from buttress.sources.identity import content_ids

GOLDEN_ID = 0x8F8E9EA539AEFB9C
GOLDEN_FINGERPRINT = "6e22ae53e6ecc4bb033ae8d3fa4f3f05f489144e9a54a8046ce700477b8647a8"
GOLDEN_ARRAY = 0xCBFCBA78ABEA2CD0


def images(count: int) -> np.ndarray:
    return np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)


def test_id_hash_golden() -> None:
    assert id_hash("cat/001.jpg") == int.from_bytes(blake2b(b"cat/001.jpg", digest_size=8).digest(), "little")
    assert id_hash("cat/001.jpg") == GOLDEN_ID
    assert fingerprint(ArraySource(images(2), ids=["a", "b/ü.jpg"])) == GOLDEN_FINGERPRINT
    assert content_hash(np.arange(6, dtype=np.uint8).reshape(1, 2, 3)) == GOLDEN_ARRAY


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_id_hash_does_not_see_the_unicode_form(text: str) -> None:
    assert id_hash(unicodedata.normalize("NFD", text)) == id_hash(unicodedata.normalize("NFC", text))


def test_id_hashes_is_id_hash_of_each() -> None:
    ids = ["a", "b/c.jpg", "é"]
    assert id_hashes(ids).dtype == np.uint64
    assert id_hashes(ids).tolist() == [id_hash(sample_id) for sample_id in ids]
    assert id_hashes([]).shape == (0,)


def test_content_hash_sees_shape_type_and_bytes_but_not_the_layout_in_memory() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert content_hash(pixels) == content_hash(np.asfortranarray(pixels))
    assert content_hash(pixels.astype("<u2")) == content_hash(pixels.astype(">u2"))
    others: list[Any] = [pixels.reshape(4, 3), pixels.astype(np.uint16), pixels + np.uint8(1), pixels.tobytes()]
    assert len({content_hash(other) for other in [pixels, *others]}) == 5


def test_fingerprint_sees_order_and_boundaries() -> None:
    prints = [fingerprint(ArraySource(images(2), ids=ids)) for ids in (["ab", "c"], ["a", "bc"], ["c", "ab"])]
    assert len(set(prints)) == 3
    source = ArraySource(images(3))
    assert fingerprint(Subset(source, [0, 1, 2])) == fingerprint(source) != fingerprint(Subset(source, [0, 1]))


def test_content_ids_number_the_repeats() -> None:
    assert content_ids([255, 1, 255, 255]) == (
        "00000000000000ff",
        "0000000000000001",
        "00000000000000ff.1",
        "00000000000000ff.2",
    )

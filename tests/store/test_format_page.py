"""The format page: its worked example and its formulas, read by a reader that knows nothing of ours."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from buttress.store.codec import TopKLog8, top_k
from buttress.store.part import plane_crc
from buttress.store.truth import decode_log8

from .small_store import densify, random_probabilities

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()


def read_record(record: bytes, k: int, classes: int) -> list[float]:
    """A target by the page's words alone."""
    bits_per_id = 0
    while 1 << bits_per_id < classes:
        bits_per_id += 1
    count = k if k < classes else k - 1
    values = [0.0 if code == 0 else 10 ** (-6 * (255 - code) / 254) for code in record[:count]]
    bits = [byte >> place & 1 for byte in record[count:] for place in range(8)]
    ids = [sum(bits[i * bits_per_id + j] << j for j in range(bits_per_id)) for i in range(k)]
    implied = max(1 - sum(values), *values)
    if k == classes:
        masses, rest = [implied, *values], 0.0
    elif bits[k * bits_per_id]:
        masses, rest = [implied, *values[1:]], values[0]
    else:
        masses, rest = values, implied
    total = sum(masses) + rest
    target = [rest / total / (classes - k) if k < classes else 0.0] * classes
    for class_id, mass in zip(ids, masses, strict=True):
        target[class_id] = mass / total
    return target


@pytest.mark.parametrize(("k", "classes"), [(1, 2), (2, 2), (1, 9), (2, 9), (3, 9), (9, 9), (10, 1000), (10, 257)])
def test_the_page_says_how_records_are_read(k, classes):
    generator = np.random.default_rng(k)
    rows_BC = np.concatenate([random_probabilities(generator, 20, classes, scale) for scale in (0.01, 1, 5)])
    codec = TopKLog8(k, classes)
    records_BS = codec.encode(*top_k(rows_BC, k))
    values_BK, ids_BK, rest_B = codec.decode(records_BS)
    theirs = np.array([read_record(record.tobytes(), k, classes) for record in records_BS])
    np.testing.assert_allclose(theirs, densify(values_BK, ids_BK, rest_B, classes), rtol=2e-5, atol=1e-8)


def test_the_worked_example_is_what_the_codec_does():
    found = re.search(r"### Worked example.*?\n\n    ((?:[0-9a-f]{2} ?)+)\n.*target: (.*?)\n", PAGE, re.DOTALL)
    assert found is not None
    record = TopKLog8(3, 5).encode(np.array([[0.7, 0.2, 0.05]]), np.array([[2, 4, 0]]))
    assert record.tobytes() == bytes.fromhex(found[1])
    target = read_record(record.tobytes(), 3, 5)
    for classes, value in re.findall(r"class(?:es)? ([0-9 and]+): ([0-9.]+)", found[2]):
        for class_id in classes.split(" and "):
            assert target[int(class_id)] == pytest.approx(float(value), abs=5e-6)


def test_the_page_says_how_truth_is_read():
    assert "`value(c)` as in records" in PAGE
    codes = np.arange(256, dtype=np.uint8)
    theirs = [0.0 if code == 0 else 10 ** (-6 * (255 - code) / 254) for code in range(256)]
    np.testing.assert_allclose(decode_log8(codes), theirs, rtol=1e-6)


def test_the_page_says_how_planes_are_checked():
    plane = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert plane_crc("labels", 65_536, 17, plane) == zlib.crc32(b"labels 65536 17" + plane.tobytes())
    column = np.array([1, 2**40], np.uint64)
    assert plane_crc("id_hashes", 0, 0, column) == zlib.crc32(b"id_hashes 0 0" + struct.pack("<2Q", 1, 2**40))

"""The container: the safetensors library reads it, equal arrays give equal bytes, no number of a header is believed."""

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from buttress.store.damage import DamageError
from buttress.store.tensors import map_tensors, pack_tensors

ARRAYS: dict[str, NDArray[Any]] = {
    "labels": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "hard_labels": np.array([-1, 5, 3], np.int32),
    "id_hashes": np.array([1, 2**64 - 1, 7], np.uint64),
    "rows": np.array([2, 0, 1], np.uint32),
    "none": np.zeros((0, 3), np.uint8),
}


def with_header(tmp_path, header, body=b"\0" * 16, pad=0):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes((len(text) + pad).to_bytes(8, "little") + text + body)
    return path


def test_what_is_written_is_mapped_and_the_library_reads_it_too(tmp_path):
    data, _ = pack_tensors(ARRAYS, {"a": "b"})
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    mapped = map_tensors(path)
    theirs = safetensors.numpy.load_file(path)
    assert mapped.metadata == {"a": "b"}
    assert mapped.length == len(data)
    assert mapped.arrays.keys() == ARRAYS.keys() == theirs.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(mapped.arrays[name], array)
        np.testing.assert_array_equal(theirs[name], array)
        assert mapped.arrays[name].dtype == array.dtype
        assert not mapped.arrays[name].flags.writeable


def test_what_the_library_writes_is_mapped(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(ARRAYS, path)
    for name, array in map_tensors(path).arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_equal_arrays_give_equal_bytes_in_whatever_order(tmp_path):
    data, digest = pack_tensors(ARRAYS, {"b": "1", "a": "2"})
    assert (data, digest) == pack_tensors({name: ARRAYS[name] for name in reversed(ARRAYS)}, {"a": "2", "b": "1"})
    assert pack_tensors({"labels": np.asfortranarray(ARRAYS["labels"])}, {}) == pack_tensors(
        {"labels": ARRAYS["labels"]}, {}
    )


def entry(dtype="U8", shape=(16,), offsets=(0, 16), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(offsets=(0, 17), shape=(17,))},
        {"a": entry(offsets=(-8, 8))},
        {"a": entry(offsets=(8, 0), shape=(8,))},
        {"a": entry(offsets=(0, 8), shape=(8,)), "b": entry(offsets=(4, 16), shape=(12,))},
        {"a": entry(offsets=(0, 4), shape=(4,)), "b": entry(offsets=(8, 16), shape=(8,))},
        {"a": entry(offsets=(0, 8), shape=(8,))},
        {"a": entry(shape=(2**62, 2**62))},
        {"a": entry(shape=(2**63, 0), offsets=(0, 0))},
        {"a": entry(shape=(-4, -4))},
        {"a": entry(shape=(16.0,))},
        {"a": entry(shape=(True, 16))},
        {"a": entry(shape=(1,) * 9 + (16,))},
        {"a": entry(dtype="F16", shape=(8,))},
        {"a": entry(dtype=["U8"])},
        {"a": entry(extra=1)},
        {"a": {"dtype": "U8"}},
        {"a": None},
        {"a": entry(), "__metadata__": {"x": 1}},
        {"a": entry(), "__metadata__": "x"},
        [],
        b"",
        b"nonsense",
        b'{"a": NaN}',
        b"\xff\xfe",
        b'{"a":' * 100_000,
        b'{"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}',
        b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,16]}}',
    ],
    ids=lambda header: repr(header)[:60],
)
def test_R5_hostile_headers_are_refused(tmp_path, header):
    with pytest.raises(DamageError, match=r"x\.safetensors: header"):
        map_tensors(with_header(tmp_path, header))


@pytest.mark.parametrize("length", [2**64 - 1, 2**40, 2**20 + 1, 1000])
def test_R5_a_header_longer_than_the_file_is_refused_without_reading_it(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(DamageError, match="header"):
        map_tensors(path)


@pytest.mark.parametrize("size", range(8))
def test_files_too_short_for_a_header_are_refused(tmp_path, size):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\0" * size)
    with pytest.raises(DamageError, match="header"):
        map_tensors(path)

"""Packed files: there and back to the bit, a reader written from the format's text alone, and files that lie."""

import json
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from buttress.errors import ModelError
from buttress.models.packed import (
    Affine,
    Entry,
    Palettised,
    Plain,
    Sparse,
    pack,
    packed_bytes,
    sizes,
    to_bits,
    write_packed,
)
from buttress.models.packed_reader import from_bits, unpack


def generator(seed):
    return torch.Generator().manual_seed(seed)


def read_by_the_text(path):
    """The format's description as plain NumPy, without the package."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    said = json.loads(header["__metadata__"]["packed"])
    assert (said["format"], said["version"]) == ("buttress-packed", 1)
    parts = {
        k: data[end + header[k]["data_offsets"][0] : end + header[k]["data_offsets"][1]] for k in ("bits", "values")
    }
    at = {"bits": 0, "values": 0}

    def take(kind, count):
        at[kind] += count
        return parts[kind][at[kind] - count : at[kind]]

    def values(count, dtype):
        return np.frombuffer(take("values", count * np.dtype(dtype).itemsize), dtype)

    def numbers(count, bits):
        single = np.unpackbits(np.frombuffer(take("bits", -(-count * bits // 8)), np.uint8), bitorder="little")
        return single[: count * bits].reshape(count, bits) @ (1 << np.arange(bits))

    dtypes = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "u1"}
    tensors = {}
    for name, entry in said["tensors"].items():
        encoding, dtype, shape = entry[0], dtypes[entry[1]], entry[2]
        count = prod(shape)
        if encoding == "plain":
            tensors[name] = values(count, dtype).reshape(shape)
        if encoding == "sparse":
            flat, stored = np.zeros(count, dtype), numbers(count, 1).astype(bool)
            flat[stored] = values(stored.sum(), dtype)
            tensors[name] = flat.reshape(shape)
        if encoding == "affine":
            whole = numbers(count, entry[3]["bits"]).reshape(shape).astype(np.float32)
            scale, zero = (values(entry[3]["scales"], "<f4").reshape(-1, *[1] * (len(shape) - 1)) for _ in range(2))
            tensors[name] = ((whole - zero) * scale).astype(dtype).reshape(shape)
        if encoding == "palette":
            groups, dim, axis, wide = (
                entry[3]["groups"],
                entry[3]["dim"],
                entry[3]["axis"],
                "<f8" if dtype == "<f8" else "<f4",
            )
            rows, left = divmod(count // groups, dim)
            indices = numbers(groups * rows, entry[3]["bits"]).reshape(groups, rows)
            table = values(groups * 2 ** entry[3]["bits"] * dim, wide).reshape(groups, -1, dim)
            flat = np.stack([table[group][indices[group]].reshape(-1) for group in range(groups)])
            if entry[3]["scaled"]:
                scale = values(shape[axis], wide).reshape(groups, -1)
                flat = flat * np.stack([np.resize(row, flat.shape[1]) for row in scale])
            flat = np.concatenate([flat.astype(dtype), values(groups * left, dtype).reshape(groups, left)], 1)
            rest = [size for place, size in enumerate(shape) if place != axis]
            runs = flat.reshape(groups, prod(rest), shape[axis] // groups).swapaxes(0, 1)
            tensors[name] = np.moveaxis(runs.reshape(*rest, shape[axis]), -1, axis)
    assert at == {kind: len(part) for kind, part in parts.items()}
    return tensors


def expected(entry):
    """What an entry stands for, number by number."""
    if isinstance(entry, Plain | Sparse):
        return entry.tensor
    if isinstance(entry, Affine):
        along = [-1, *[1] * (entry.integers.ndim - 1)] if entry.integers.ndim else []
        scale, zero = entry.scale.reshape(along), entry.zero_point.reshape(along)
        return ((entry.integers.float() - zero) * scale).to(entry.dtype)
    groups, _, dim = entry.lut_GKD.shape
    channels, rows = entry.shape[entry.axis], entry.indices_GN.shape[1]
    run = channels // groups
    moved = torch.zeros(
        [s for a, s in enumerate(entry.shape) if a != entry.axis] + [channels], dtype=entry.left_GT.dtype
    )
    flat = moved.view(-1, channels)
    for group in range(groups):
        for number in range(len(flat) * run):
            place, channel = divmod(number, run)
            channel += group * run
            if number < rows * dim:
                value = entry.lut_GKD[group, int(entry.indices_GN[group, number // dim]), number % dim]
                value = value if entry.scale_O is None else value * entry.scale_O[channel]
            else:
                value = entry.left_GT[group, number - rows * dim]
            flat[place, channel] = value
    return moved.movedim(-1, entry.axis)


@st.composite
def palettes(draw):
    groups, run, rest = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.lists(st.integers(1, 3), max_size=2))
    axis, bits = draw(st.integers(0, len(rest))), draw(st.integers(1, 8))
    in_group = run * prod(rest)
    dim = draw(st.integers(1, min(in_group, 5)))
    rows, left = divmod(in_group, dim)
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16]))
    wide, seed = torch.float64 if dtype == torch.float64 else torch.float32, generator(draw(st.integers(0, 99)))
    return Palettised(
        shape=(*rest[:axis], groups * run, *rest[axis:]),
        axis=axis,
        bits=bits,
        indices_GN=torch.randint(2**bits, (groups, rows), generator=seed).to(torch.uint8),
        lut_GKD=torch.randn(groups, 2**bits, dim, generator=seed, dtype=wide),
        scale_O=torch.rand(groups * run, generator=seed, dtype=wide) if draw(st.booleans()) else None,
        left_GT=torch.randn(groups, left, generator=seed).to(dtype),
    )


@st.composite
def affines(draw):
    shape, bits, seed = (
        draw(st.lists(st.integers(0, 4), max_size=3)),
        draw(st.integers(1, 8)),
        generator(draw(st.integers(0, 99))),
    )
    scales = shape[0] if shape and shape[0] > 1 and draw(st.booleans()) else 1
    return Affine(
        integers=torch.randint(2**bits, shape, generator=seed).to(torch.uint8),
        bits=bits,
        scale=torch.rand(scales, generator=seed),
        zero_point=torch.randint(9, (scales,), generator=seed).float(),
        dtype=draw(st.sampled_from([torch.float32, torch.float16])),
    )


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    tensor = torch.randn(shape, generator=generator(draw(st.integers(0, 99))))
    tensor = torch.where(tensor.abs() < draw(st.floats(0, 2)), torch.zeros(()), tensor)
    return (tensor * 8).to(
        draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8]))
    )


entries = st.lists(tensors().map(Plain) | tensors().map(Sparse) | palettes() | affines(), max_size=4)


@settings(max_examples=80)
@given(listed=entries)
def test_there_and_back_and_the_text_says_all(tmp_path_factory, listed):
    path, named = tmp_path_factory.mktemp("packed") / "x.safetensors", {f"t{i}": one for i, one in enumerate(listed)}
    write_packed(path, named)
    read, read_too = unpack(path), read_by_the_text(path)
    assert list(read) == list(read_too) == list(named)
    for name, entry in named.items():
        wanted = expected(entry)
        assert read[name].dtype == wanted.dtype and read[name].shape == wanted.shape
        torch.testing.assert_close(read[name], wanted, rtol=0, atol=0)
        np.testing.assert_array_equal(read_too[name], wanted.numpy(), strict=True)


@settings(max_examples=60)
@given(bits=st.integers(1, 8), count=st.integers(0, 70), seed=st.integers(0, 99))
def test_index_i_is_in_bits_ib_and_up(bits, count, seed):
    numbers = torch.randint(2**bits, (count,), generator=generator(seed)).to(torch.uint8)
    packed = to_bits(numbers, bits)
    as_one = int.from_bytes(packed.tobytes(), "little")
    assert len(packed) == -(-count * bits // 8)
    assert [(as_one >> (i * bits)) % 2**bits for i in range(count)] == numbers.tolist()
    assert torch.equal(from_bits(packed, count, bits), numbers)


def test_all_bits_come_back_of_what_is_not_a_plain_number(tmp_path):
    odd = torch.tensor([0.0, -0.0, float("nan"), float("inf"), 1e-45])
    named: dict[str, Entry] = {
        "plain": Plain(odd),
        "sparse": Sparse(odd),
        "half": Plain(odd.bfloat16()),
        "is": Sparse(odd > 0),
    }
    write_packed(tmp_path / "x.safetensors", named)
    read = unpack(tmp_path / "x.safetensors")
    for name in ("plain", "sparse"):
        assert torch.equal(read[name].view(torch.int32), odd.view(torch.int32))
    assert torch.equal(read["half"].view(torch.int16), odd.bfloat16().view(torch.int16))
    assert torch.equal(read["is"], odd > 0)


def test_sizes_are_those_of_the_file(tmp_path):
    named: dict[str, Entry] = {
        "a": Palettised(
            (5, 2), 0, 2, torch.zeros(1, 3, dtype=torch.uint8), torch.zeros(1, 4, 3), torch.ones(5), torch.ones(1, 1)
        ),
        "b": Plain(torch.zeros(7)),
        "c": Sparse(torch.tensor([0.0, 2.0, 0.0])),
        "d": Affine(torch.zeros(9, dtype=torch.uint8), 3, torch.ones(1), torch.zeros(1)),
    }
    said = sizes(named)
    assert (said.indices, said.palettes, said.unclustered) == (1 + 1 + 4, 48 + 20 + 8, 4 + 28 + 4)
    write_packed(tmp_path / "x.safetensors", named)
    assert (tmp_path / "x.safetensors").stat().st_size == said.file


def test_equal_entries_give_equal_bytes_and_further_metadata_stands_beside():
    named = {"b": Plain(torch.arange(3.0))}
    assert packed_bytes(named, {"y": "1", "a": "2"}) == packed_bytes(named, {"a": "2", "y": "1"})
    assert b'"a":"2"' in packed_bytes(named, {"a": "2"})


def test_a_dtype_without_a_name_is_refused():
    with pytest.raises(ModelError, match=r"z: torch.complex64 has no place"):
        pack({"z": Plain(torch.zeros(2, dtype=torch.complex64))})


PALETTE: dict[str, object] = {"encoding": "palette", "dtype": "F32", "shape": [4, 2]}
PALETTE |= {"bits": 1, "dim": 1, "groups": 1, "axis": 0, "scaled": False}
PLAIN = {"encoding": "plain", "dtype": "F32", "shape": [3]}
AFFINE = {"encoding": "affine", "dtype": "F32", "shape": [4], "bits": 2, "scales": 1}


def as_said(encoding, dtype, shape, **fields):
    return [encoding, dtype, shape, *([fields] if fields else [])]


@pytest.mark.parametrize(
    ("entry", "bits", "values", "what"),
    [
        (PALETTE, 1, 8, None),
        (PALETTE, 0, 8, "wants 1 bytes of bits, and 0 are left"),
        (PALETTE, 1, 7, "wants 8 bytes of values, and 7 are left"),
        (PALETTE, 2, 8, "1 bytes belong to no tensor"),
        (PALETTE | {"bits": 9}, 9, 8, "bits is not a whole number from 1 to 8"),
        (PALETTE | {"bits": True}, 1, 8, "bits is not a whole number"),
        (PALETTE | {"dim": 0}, 1, 8, "dim is not a whole number from 1 to 8"),
        (PALETTE | {"dim": 9}, 1, 8, "dim is not a whole number from 1 to 8"),
        (PALETTE | {"axis": 2}, 1, 8, "axis is not a whole number from 0 to 1"),
        (PALETTE | {"groups": 3}, 1, 8, "4 places along axis 0 do not make 3 groups"),
        (PALETTE | {"groups": 0}, 1, 8, "groups is not"),
        (PALETTE | {"shape": []}, 1, 8, "axis is not"),
        (PALETTE | {"shape": [0, 2]}, 1, 8, "dim is not"),
        (PALETTE | {"dtype": "I64"}, 1, 8, "a palette holds floating-point numbers alone"),
        (PLAIN, 0, 12, None),
        (PLAIN | {"shape": [-3]}, 0, 12, "its shape holds what is no size"),
        (PLAIN | {"shape": [3.0]}, 0, 12, "its shape holds what is no size"),
        (PLAIN | {"shape": "3"}, 0, 12, "its shape is not a list"),
        (PLAIN | {"shape": [1] * 9}, 0, 12, "its shape is not a list of at most 8"),
        (PLAIN | {"shape": [2**40, 2**40]}, 0, 12, "unpacks to more than"),
        (PLAIN | {"dtype": "F31"}, 0, 12, "dtype 'F31' is not one of"),
        (PLAIN | {"dtype": ["F32"]}, 0, 12, "dtype .* is not one of"),
        (PLAIN | {"encoding": "zip"}, 0, 12, "encoding 'zip' is not one of plain, palette, sparse, affine"),
        (PLAIN | {"encoding": "sparse"}, 1, 0, None),
        (PLAIN | {"encoding": "sparse", "shape": [2**30]}, 1, 0, "bytes of bits"),
        (AFFINE, 1, 8, None),
        (AFFINE | {"scales": 2}, 1, 16, "has neither one scale nor one for each place"),
        (AFFINE | {"scales": 1.0}, 1, 8, "scales is not a whole number"),
        ("plain", 0, 0, "is not described by encoding, dtype, shape and fields"),
        (["plain", "F32"], 0, 0, "is not described by"),
        (["plain", "F32", [3], 7], 0, 12, "is not described by"),
    ],
)
def test_a_file_that_lies_is_refused_in_one_line(tmp_path, entry, bits, values, what):
    path = tmp_path / "x.safetensors"
    entry = as_said(**entry) if isinstance(entry, dict) else entry
    text = json.dumps({"format": "buttress-packed", "version": 1, "tensors": {"w": entry}})
    save_file({"bits": np.zeros(bits, np.uint8), "values": np.zeros(values, np.uint8)}, path, {"packed": text})
    if what is None:
        assert list(unpack(path)) == ["w"]
        return
    with pytest.raises(ModelError, match=what) as refused:
        unpack(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


GOOD = {"bits": np.zeros(0, np.uint8), "values": np.zeros(0, np.uint8)}


@pytest.mark.parametrize(
    ("arrays", "text", "what"),
    [
        (GOOD, "{", "not valid JSON"),
        (GOOD, "[]", "its metadata is not that of buttress-packed"),
        (GOOD, '{"format":"other"}', "its metadata is not that of buttress-packed"),
        (GOOD, '{"format":"buttress-packed","version":2}', "version 2 is not 1; use a newer Buttress"),
        (GOOD, '{"format":"buttress-packed","version":1}', "does not list tensors"),
        (GOOD | {"more": np.zeros(1)}, "{}", "not a packed weights file"),
        (GOOD | {"bits": np.zeros(1, np.float32)}, "{}", "bits and values are not bytes"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, arrays, text, what):
    save_file(arrays, tmp_path / "x.safetensors", {"packed": text})
    with pytest.raises(ModelError, match=what):
        unpack(tmp_path / "x.safetensors")


def test_no_file_and_a_cut_one(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ModelError, match="no such packed file"):
        unpack(path)
    whole = packed_bytes({"a": Plain(torch.ones(100))})
    for length in (0, 7, 50, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="not a readable safetensors file"):
            unpack(path)

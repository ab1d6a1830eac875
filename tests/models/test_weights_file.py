import json

import pytest
import torch

from buttress.errors import ModelError
from buttress.models.weights_file import read_weights, write_weights


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {"a": torch.randn(3, 4), "n": torch.tensor(7), "h": torch.ones(2, dtype=torch.bfloat16)}
    write_weights(tmp_path / "w.safetensors", tensors, {"timm_model": "x", "note": "naïve"})
    read = read_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in tensors.items())
    assert read.metadata == {"timm_model": "x", "note": "naïve", "format": "pt"}


def test_equal_weights_give_equal_files(tmp_path):
    tensors = {"b": torch.arange(5), "a": torch.ones(3)}
    files = [tmp_path / f"{number}.safetensors" for number in range(6)]
    for file in files:
        write_weights(file, tensors, {"one": "1", "two": "2", "three": "3", "four": "4"})
    assert len({file.read_bytes() for file in files}) == 1
    assert read_weights(files[0]).sha256 == read_weights(files[5]).sha256


def test_tied_tensors_are_stored_once_and_come_back(tmp_path):
    shared = torch.randn(100, 100)
    file = tmp_path / "w.safetensors"
    write_weights(file, {"head": shared, "embedding": shared, "other": shared.clone()}, {})
    assert file.stat().st_size < 3 * shared.nbytes
    read = read_weights(file)
    assert json.loads(read.metadata["tied"]) == {"embedding": "head"}
    assert torch.equal(read.tensors["embedding"], shared)


def test_channels_last_tensors_and_slices_are_stored(tmp_path):
    base = torch.randn(4, 3, 5, 5)
    tensors = {"last": base.to(memory_format=torch.channels_last), "slice": base[1:3], "first": base[:1]}
    write_weights(tmp_path / "w.safetensors", tensors, {})
    read = read_weights(tmp_path / "w.safetensors").tensors
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_pickled_weights_are_refused_and_never_loaded(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    with pytest.raises(ModelError, match="convert") as failure:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(failure.value)


def test_absent_and_damaged_files_are_one_line_errors(tmp_path):
    with pytest.raises(ModelError, match="no such weights file"):
        read_weights(tmp_path / "w.safetensors")
    file = tmp_path / "w.safetensors"
    write_weights(file, {"a": torch.ones(100)}, {})
    for damaged in (b"", b"\xff" * 40, file.read_bytes()[:-8]):
        file.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"w\.safetensors: not a readable safetensors file"):
            read_weights(file)


def test_tied_names_must_be_in_the_file(tmp_path):
    write_weights(tmp_path / "w.safetensors", {"a": torch.ones(1)}, {"tied": '{"b": "c"}'})
    with pytest.raises(ModelError, match="tied"):
        read_weights(tmp_path / "w.safetensors")

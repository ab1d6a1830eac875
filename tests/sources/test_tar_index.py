"""The index of a tar file: used while it is right, made anew when it is not, never trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from tars import tar_bytes, write_tar

from buttress.errors import SourceError
from buttress.files import write_atomic
from buttress.sources import tar_index
from buttress.sources.tar_index import is_indexed, open_index
from buttress.sources.tar_scan import Members, Read, scan

FILES = {"cat/a.jpg": b"one", "dog/é.jpg": b"three", "dog/é.cls": b"1", "x.txt": b""}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "buttress" / "tar"


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The archives that were looked through."""
    seen: list[str] = []

    def counted(read: Read, size: int, place: str) -> Members:
        seen.append(place)
        return scan(read, size, place)

    monkeypatch.setattr(tar_index, "scan", counted)
    return seen


def opened(path: Path) -> Members:
    return open_index(str(path), path.name)


def same(one: Members, other: Members) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("offsets", "sizes", "checks", "labels")
    )
    return arrays and (one.names, one.others) == (other.names, other.others)


def test_an_archive_is_looked_through_once(tmp_path: Path, scans: list[str]) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    assert not is_indexed(str(path))
    first = opened(path)
    assert first.names == ("cat/a.jpg", "dog/é.jpg", "dog/é.cls")
    assert is_indexed(str(path))
    assert same(opened(path), first)
    assert scans == ["a.tar"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tar", "a.tar.index"]


def test_another_date_or_size_makes_it_stale(tmp_path: Path, scans: list[str]) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    opened(path)
    date = path.stat().st_mtime_ns
    path.write_bytes(tar_bytes({"cat/b.jpg": b"two"}))
    os.utime(path, ns=(date, date + 1))
    assert opened(path).names == ("cat/b.jpg",)
    path.write_bytes(tar_bytes({"cat/c.jpg": bytes(20_000)}))
    os.utime(path, ns=(date, date + 1))
    assert opened(path).names == ("cat/c.jpg",)
    assert len(scans) == 3


def test_R3_any_damaged_byte_of_the_index_is_seen(tmp_path: Path, scans: list[str]) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    first = opened(path)
    index = tmp_path / "a.tar.index"
    whole = index.read_bytes()
    for place in range(len(whole)):
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert same(opened(path), first)
    # a bit in the padding of the JSON header may change nothing that is read
    assert len(scans) > len(whole) - 16
    for length in range(0, len(whole), 7):
        index.write_bytes(whole[:length])
        assert same(opened(path), first)
    assert index.read_bytes() == whole


def forged(index: Path, **changes: np.ndarray) -> None:
    """An index whose digest is right and whose arrays are not."""
    with safetensors.safe_open(index, framework="numpy") as file:
        about = json.loads(file.metadata()["index"])
        arrays = {name: file.get_tensor(name) for name in file.keys()} | changes  # noqa: SIM118
    about["digest"] = tar_index._digest(arrays, about)
    index.write_bytes(safetensors.numpy.save(arrays, {"index": json.dumps(about)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": np.array([512, 10**9, 2048], np.int64)},
        {"offsets": np.array([512, -512, 2048], np.int64)},
        {"offsets": np.array([512, 2**63 - 1, 2048], np.int64), "sizes": np.array([1, 2**63 - 1, 1], np.int64)},
        {"sizes": np.array([1, 2**63 - 1, 1], np.int64)},
        {"sizes": np.array([1, -2, 1], np.int64)},
        {"sizes": np.array([1, 1], np.int64)},
        {"labels": np.array([-1, -1, -9], np.int32)},
        {"labels": np.array([[-1], [-1], [-1]], np.int32)},
        {"checks": np.array([1, 2, 3], np.int64)},
        {"names": np.frombuffer(b"a.jpg", np.uint8)},
    ],
)
def test_R5_a_forged_index_is_not_followed(tmp_path: Path, scans: list[str], changes: dict[str, np.ndarray]) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    first = opened(path)
    forged(tmp_path / "a.tar.index", **changes)
    assert same(opened(path), first)
    assert len(scans) == 2


def test_R5_a_huge_index_is_not_read(tmp_path: Path, scans: list[str]) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    first = opened(path)
    with (tmp_path / "a.tar.index").open("r+b") as file:
        file.truncate(2**40)
    assert same(opened(path), first)
    assert len(scans) == 2


def test_where_the_folder_cannot_be_written_the_cache_is_used(
    tmp_path: Path, cache: Path, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "data" / "a.tar", FILES)

    def closed(target: Path, data: bytes) -> None:
        if target.parent == path.parent:
            raise PermissionError(13, "Permission denied")
        write_atomic(target, data)

    monkeypatch.setattr(tar_index, "write_atomic", closed)
    first = opened(path)
    assert [file.suffix for file in cache.iterdir()] == [".index"]
    assert is_indexed(str(path))
    assert same(opened(path), first)
    assert len(scans) == 1


def test_where_nothing_can_be_written_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(target: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tar_index, "write_atomic", full)
    assert len(opened(write_tar(tmp_path / "a.tar", FILES)).names) == 3
    assert "looked through every time" in capsys.readouterr().err


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent\.tar: cannot be read \(No such file"):
        opened(tmp_path / "absent.tar")
    with pytest.raises(SourceError, match="cannot be read"):
        opened(tmp_path)

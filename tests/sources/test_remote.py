"""Images in stores behind fsspec: folders, Parquet, tar files and shards, read by ranges."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import png, tar_bytes
from tests.sources.every_source import refusal, samples

from buttress.errors import SourceError
from buttress.sources import Relabelled, Subset, UndecodableImage, open_source, tar_reader
from buttress.sources.source import chunks_of
from buttress.sources.tar_reader import MAX_IMAGE_BYTES, Rows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "buttress" / "tar"


@pytest.fixture
def store() -> Iterator[Any]:
    """The memory of `memory://`, empty."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield memory
    memory.store.clear()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every range that is asked for: path, start, bytes."""
    seen: list[tuple[str, int, int]] = []
    cat_file = MemoryFileSystem.cat_file

    def counted(self: Any, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        data: bytes = cat_file(self, path, start=start, end=end, **options)
        seen.append((path, start, len(data)))
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    return seen


def test_a_folder_has_the_samples_of_a_local_one(store: Any, photos: Path) -> None:
    store.put(str(photos), "/bucket/photos", recursive=True)
    store.pipe("/bucket/photos/.hidden/x.png", b"")
    store.pipe("/bucket/photos/blue/notes.txt", b"")
    local = open_source(f"folder:{photos}")
    for uri in ("folder:memory://bucket/photos", "folder:memory://bucket/photos/"):
        source = open_source(uri)
        assert (source.uri, source.ids, source.classes) == (uri, local.ids, local.classes)
        assert samples(pickle.loads(pickle.dumps(source))) == samples(local)
    assert open_source("folder:memory://bucket/photos", labels=False).classes is None


def test_R16_a_file_that_went_is_one_bad_image(store: Any) -> None:
    store.pipe({"/b/cat/1.png": png(1), "/b/dog/é.png": png(2)})
    source = open_source("folder:memory://b")
    store.rm("/b/cat/1.png")
    with pytest.raises(UndecodableImage, match=r"memory://b/cat/1\.png: no such file"):
        source[0]
    assert source[1].data == png(2)


def test_folders_that_are_no_data_set(store: Any) -> None:
    assert "found 0 images" in refusal("folder:memory://nothing")
    store.pipe({"/b/a/x.txt": b"", "/b/a/y.jpg": b"", "/b/c/z.txt": b""})
    assert "1 class folders hold no image ('c')" in refusal("folder:memory://b")
    assert "Protocol not known: nonsense" in refusal("folder:nonsense://b")
    assert "did you mean 'folder:memory://b'" in refusal("memory://b")


def test_a_store_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    message = refusal("wds:s3://bucket/{000..001}.tar")
    assert "s3://bucket/000.tar" in message
    assert "s3fs" in message


def test_parquet_row_groups_are_chunks(store: Any) -> None:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for part in range(2):
        images = pa.array([{"bytes": png(10 * part + n), "path": f"{part}{n}.png"} for n in range(5)], struct)
        with store.open(f"/p/{part}.parquet", "wb") as file:
            pq.write_table(pa.table({"image": images, "label": [0, 1, 2, 0, 1]}), file, row_group_size=3)
    for uri in ("parquet:memory://p", "parquet:memory://p/*.parquet", "parquet:memory://p/0.parquet"):
        source = open_source(uri)
        assert [sample.data for sample in samples(pickle.loads(pickle.dumps(source)))][:5] == [png(n) for n in range(5)]
        assert source.ids[:2] == ("00.png", "01.png")
    chunks = chunks_of(open_source("parquet:memory://p"))
    assert chunks is not None
    assert chunks.of.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert chunks.window > 100
    assert "no Parquet file found" in refusal("parquet:memory://p/*.pq")
    assert "memory://p/9.parquet" in refusal("parquet:memory://p/9.parquet")


def test_a_tar_file(store: Any, cache: Path) -> None:
    store.pipe("/b/photos.tar", tar_bytes({"photos/cat/1.png": png(1), "photos/dog/2.png": png(2)}))
    source = open_source("tar:memory://b/photos.tar")
    assert [(sample.id, sample.data, sample.label) for sample in samples(source)] == [
        ("cat/1.png", png(1), 0),
        ("dog/2.png", png(2), 1),
    ]
    assert len(list(cache.iterdir())) == 1
    assert "absent.tar: no such file" in refusal("tar:memory://b/absent.tar")


@pytest.fixture
def shards(store: Any) -> str:
    """Two shards of 20 samples."""
    for shard in range(2):
        members = {}
        for number in range(20):
            members[f"{number:02d}.png"] = png(20 * shard + number)
            members[f"{number:02d}.cls"] = b"%d" % (number % 3)
        store.pipe(f"/b/s-{shard}.tar", tar_bytes(members))
    store.pipe("/b/classes.txt", b"x\ny\nz\n")
    return "wds:memory://b/s-{0..1}.tar"


def test_shards_are_looked_through_once(
    shards: str, store: Any, requests: list[tuple[str, int, int]], cache: Path
) -> None:
    source = open_source(shards)
    assert [path for path, _, _ in requests] == ["/b/s-0.tar", "/b/s-1.tar"]  # small ones by one request each
    assert len(list(cache.iterdir())) == 2
    requests.clear()
    again = open_source("wds:memory://b/s-*.tar?classes=memory://b/classes.txt")
    assert [path for path, _, _ in requests] == ["/b/classes.txt"]
    assert (again.ids, again.classes) == (source.ids, ("x", "y", "z"))
    assert [sample.data for sample in samples(again)] == [png(n) for n in range(40)]
    requests.clear()
    store.pipe("/b/s-1.tar", tar_bytes({"new.png": png(7)}))
    assert open_source(shards).ids[-1] == "s-1.tar/new"
    assert [path for path, _, _ in requests] == ["/b/s-1.tar"]


def test_one_image_is_one_range_and_neighbours_come_together(
    shards: str, requests: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(shards)
    requests.clear()
    assert [source[index].data for index in (3, 25)] == [png(3), png(25)]
    # far apart: header and data of each, nothing else
    assert requests == [("/b/s-0.tar", 3 * 2048, 512 + len(png(3))), ("/b/s-1.tar", 5 * 2048, 512 + len(png(25)))]
    requests.clear()
    assert [source[index].data for index in range(20)] == [png(n) for n in range(20)]
    assert requests == [("/b/s-0.tar", 0, 19 * 2048 + 512 + len(png(19)))]  # the second of a chunk fetches it whole


def test_the_cache_is_bounded_and_stays_out_of_the_pickle(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "CHUNK_BYTES", 3 * 2048)
    monkeypatch.setattr(tar_reader, "_CACHE_BYTES", 4 * 2048)
    monkeypatch.setattr(tar_reader, "_REMEMBERED", 4)
    source: Any = open_source(shards)
    fresh = len(pickle.dumps(source))
    for index in np.random.default_rng(0).integers(0, 40, 200).tolist():
        assert source[index].data == png(index)
        assert len(source._reader._cache) <= 4
        assert sum(map(len, source._reader._cache.values())) <= 4 * 2048
    assert len(pickle.dumps(source)) == fresh
    assert samples(pickle.loads(pickle.dumps(source))) == samples(source)


def test_a_shard_that_changes_under_an_open_source(shards: str, store: Any) -> None:
    source = open_source(shards)
    store.pipe("/b/s-1.tar", tar_bytes({"other.png": png(1)}))
    with pytest.raises(SourceError, match=r"s-1\.tar: has changed since it was opened"):
        source[25]
    store.rm("/b/s-1.tar")
    with pytest.raises(SourceError, match=r"s-1\.tar: no such file"):
        source[26]


def test_choices_and_other_labels_keep_the_chunks(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "CHUNK_BYTES", 5 * 2048)
    source = open_source(shards)
    chunks = chunks_of(source)
    assert chunks is not None
    assert chunks.of.tolist() == [n // 5 for n in range(40)]
    chosen = chunks_of(Subset(source, [39, 0, 12]))
    assert chosen is not None
    assert chosen.of.tolist() == [7, 0, 2]
    relabelled = chunks_of(Relabelled(Subset(source, [39, 0, 12]), None))
    assert relabelled is not None
    assert relabelled.of.tolist() == [7, 0, 2]


@settings(deadline=None)
@given(
    members=st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(1, 50), st.sampled_from([-2, -1, 0, 10, 700, 5000, MAX_IMAGE_BYTES + 1])
        ),
        max_size=30,
    ),
    limit=st.integers(512, 6000),
)
def test_chunks_hold_their_images_and_no_more_than_they_may(members: list[tuple[int, int, int]], limit: int) -> None:
    table = np.array(members, np.int64).reshape(-1, 3)
    rows = Rows(
        archive=table[:, 0].astype(np.int32),
        offset=table[:, 1] * 512,
        size=table[:, 2],
        check=np.zeros(len(table), np.uint32),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_reader, "CHUNK_BYTES", limit)
        numbers, spans = tar_reader._chunks(rows)
    for (archive, block, size), chunk in zip(members, numbers.tolist(), strict=True):
        if not 0 <= size <= MAX_IMAGE_BYTES:
            continue
        start, stop = spans[chunk].tolist()
        assert start <= block * 512 - 512
        assert block * 512 + size <= stop
        inside = [n for n in range(len(members)) if numbers[n] == chunk and 0 <= members[n][2] <= MAX_IMAGE_BYTES]
        assert stop - start <= limit or len({members[n][1] for n in inside}) == 1
        assert {members[n][0] for n in inside} == {archive}


def test_another_process_reads_it(tmp_path: Path) -> None:
    """By `file://`, which fsspec takes for a store like any other: a fresh process knows nothing of ours."""
    (tmp_path / "s.tar").write_bytes(tar_bytes({f"{n}.png": png(n) for n in range(4)}))
    source = open_source(f"wds:file://{tmp_path}/s.tar")
    (tmp_path / "packed").write_bytes(pickle.dumps(source))
    code = "import pickle, sys; s = pickle.load(open(sys.argv[1], 'rb')); print([len(s[i].data) for i in range(4)])"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "packed")], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str([len(png(n)) for n in range(4)])

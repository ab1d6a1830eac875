"""Training from shards in a store: every sample once, in an order that reads each chunk about once, for any workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.sources.tars import tar_bytes

from buttress.loading.batches import HardBatches
from buttress.loading.loader import BatchLoader
from buttress.loading.order import chunked_order, epoch_order
from buttress.sources import Source, Subset, open_source, tar_reader
from buttress.views.presets import preset


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """60 images in three shards of `memory://`, in chunks of five; a process keeps two chunks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for shard in range(3):
        contents = {}
        for number in range(20):
            pixels = np.random.default_rng(20 * shard + number).integers(0, 256, (8, 8, 3), np.uint8)
            contents[f"{number:02d}.png"] = cv2.imencode(".png", pixels)[1].tobytes()
            contents[f"{number:02d}.cls"] = b"%d" % (number % 3)
        memory.pipe(f"/chunks/{shard}.tar", tar_bytes(contents))
    monkeypatch.setattr(tar_reader, "CHUNK_BYTES", 5 * 2048)
    monkeypatch.setattr(tar_reader, "_CACHE_BYTES", 2 * 5 * 2048)
    monkeypatch.setattr(tar_reader, "_WINDOW", 2)
    yield "wds:memory://chunks/{0..2}.tar"
    memory.rm("/chunks", recursive=True)


@pytest.fixture
def asked(shards: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every request to the store."""
    asked: list[int] = []
    cat_file = MemoryFileSystem.cat_file

    def counted(self: Any, path: str, start: Any = None, end: Any = None, **options: Any) -> Any:
        asked.append(end - start)
        return cat_file(self, path, start=start, end=end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    return asked


def epoch_ids(source: Source, epoch: int = 0, **options: Any) -> list[str]:
    batches = HardBatches(source, preset("small"), seed=3, size=8)
    loader = BatchLoader(batches, **{"batch": 4, "shuffle": True, "seed": 3, **options})
    loader.set_epoch(epoch)
    return [sample_id for batch in loader for sample_id in batch.ids]


def test_an_epoch_takes_the_order_of_chunks_whatever_the_workers(shards: str) -> None:
    source = open_source(shards)
    chunk_of = np.arange(60, dtype=np.int32) // 5
    for epoch in (0, 1):
        expected = [source.ids[index] for index in chunked_order(3, epoch, chunk_of, 2)]
        assert epoch_ids(source, epoch) == expected
        assert epoch_ids(source, epoch, workers=2) == expected
        assert sorted(expected) == sorted(source.ids)
    assert epoch_ids(source, shuffle=False) == list(source.ids)


def test_that_order_asks_the_store_for_each_chunk_about_once(shards: str, asked: list[int]) -> None:
    source: Any = open_source(shards)
    asked.clear()
    epoch_ids(source)
    chunked, chunked_bytes = len(asked), sum(asked)
    assert chunked <= 2 * 12  # of twelve chunks, each once alone and once whole
    asked.clear()
    source.chunks = None
    source._reader._cache.clear()
    epoch_ids(source)
    assert len(asked) > 1.5 * chunked
    assert sum(asked) > 1.5 * chunked_bytes


def test_a_part_of_the_samples_keeps_to_its_chunks(shards: str) -> None:
    chosen = np.array([50, 3, 7, 8, 22, 59, 0, 31], np.int64)
    source = Subset(open_source(shards), chosen)
    order = chunked_order(3, 0, (chosen // 5).astype(np.int32), 2)
    assert epoch_ids(source) == [source.ids[index] for index in order]


def test_samples_without_a_label_do_not_move_the_others_chunks(shards: str) -> None:
    source: Any = open_source(shards)
    source.labels[:7] = -1
    order = chunked_order(3, 0, (np.arange(7, 60) // 5).astype(np.int32), 2)
    assert epoch_ids(source, batch=1) == [source.ids[7 + index] for index in order]


def test_a_local_source_keeps_the_plain_order(source: Source) -> None:
    labelled = epoch_ids(source)
    assert labelled == [source.ids[index] for index in epoch_order(3, 0, len(source))]


def test_several_views_of_a_decode_show_every_sample(shards: str, asked: list[int]) -> None:
    """Once the line is full each chunk is asked for as often as with one view, in a quarter of the time."""
    source: Any = open_source(shards)
    asked.clear()
    loader = BatchLoader(
        HardBatches(source, preset("small"), seed=3, size=8), batch=4, shuffle=True, seed=3, views_per_decode=4
    )
    shown: list[str] = []
    for epoch in range(12):
        if epoch == 4:
            asked.clear()
        loader.set_epoch(epoch)
        shown += [sample_id for batch in loader for sample_id in batch.ids]
    assert len(shown) == 12 * 60
    counts = [shown.count(sample_id) for sample_id in source.ids]
    assert min(counts) >= 8 and max(counts) <= 16
    assert len(asked) <= 2 * 2 * 12

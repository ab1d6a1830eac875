"""Every block of docs/sources.md is run, on small images, and it names every scheme that opens."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from tars import png, tar_bytes, write_tar

from buttress.sources.folder import FolderSource
from buttress.sources.imagenet_lists import wordnet_ids
from buttress.sources.opening import _OPENERS
from buttress.sources.packing import PackSettings, pack_source

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = {f"{('cat', 'dog')[n % 2]}/{n}.png": png(n) for n in range(4)}
    for name, data in images.items():
        path = tmp_path / "photos" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    pack_source(FolderSource(tmp_path / "photos" / "train"), PackSettings(), tmp_path / "packed", workers=0)
    write_tar(tmp_path / "photos.tar", {f"train/{name}": data for name, data in images.items()})
    columns = {"photo": list(images.values()), "kind": ["x", "y"] * 2, "key": list(images), "other": [b""] * 4}
    pq.write_table(pa.table(columns), tmp_path / "photos.parquet")
    for shard in range(2):
        members = {f"{n:04d}.png": png(n) for n in range(4)} | {f"{n:04d}.cls": b"%d" % (n % 2) for n in range(4)}
        write_tar(tmp_path / "shards" / f"train-{shard:03d}.tar", members)
        fsspec.filesystem("memory").pipe(f"/bucket/train-{shard:03d}.tar", tar_bytes(members))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    cells = {"image": [{"bytes": png(n), "path": f"{n}.png"} for n in range(4)], "label": [0, 1, 0, 1]}
    DatasetDict({"train": Dataset.from_dict(cells, features=features)}).save_to_disk(tmp_path / "pets")
    folders = {name: wordnet_ids(f"imagenet_{name}") for name in "ar"}
    for name, each in {**folders, "sketch": ["n01440764"], "v2": ["0", "10", "2"]}.items():
        for folder in each:
            (tmp_path / f"imagenet-{name}" / folder).mkdir(parents=True)
            (tmp_path / f"imagenet-{name}" / folder / "a.png").write_bytes(png(0))
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 3), ("t10k", 2)):
        pixels = np.zeros((count, 28, 28), np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + bytes(range(count)))


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("block", BLOCKS, ids=[str(number) for number in range(len(BLOCKS))])
def test_the_page_runs_as_it_stands(block: str) -> None:
    exec(block, {})


def test_every_scheme_has_an_example() -> None:
    shown = set(re.findall(r'open_source\("([\w-]+)', "".join(BLOCKS)))
    assert shown == {*_OPENERS, "digits"}
    assert "memory://" in "".join(BLOCKS)

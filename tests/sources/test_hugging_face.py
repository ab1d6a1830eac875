"""Hugging Face data sets from local folders: splits, columns, ids, workers. Nothing here may reach for the network."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from tars import png
from tests.sources.every_source import refusal, samples

from buttress.sources import Sample, UndecodableImage, decode, open_source
from buttress.sources.source import chunks_of


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded is kept in the test's folder, and the hub is closed."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def image(number: int, path: str | None = None) -> dict[str, Any]:
    return {"bytes": png(number), "path": path}


def made(columns: dict[str, list[Any]], features: dict[str, Any]) -> Dataset:
    return Dataset.from_dict(columns, features=Features(features))


def pets(first: int = 0, count: int = 6) -> Dataset:
    """Images with a path each and the classes cat and dog."""
    numbers = range(first, first + count)
    return made(
        {"image": [image(n, f"{n}.png") for n in numbers], "label": [n % 2 if n != 3 else -1 for n in numbers]},
        {"image": Image(), "label": ClassLabel(names=["cat", "dog"])},
    )


def test_a_saved_data_set(tmp_path: Path) -> None:
    pets().save_to_disk(tmp_path / "pets")
    uri = f"hf:{tmp_path / 'pets'}"
    source = open_source(uri)
    assert (source.uri, source.classes, len(source)) == (uri, ("cat", "dog"), 6)
    assert source.ids == tuple(f"{n}.png" for n in range(6))
    assert source.labels.tolist() == [0, 1, 0, -1, 0, 1]
    assert samples(source)[2:4] == [Sample("2.png", png(2), 0), Sample("3.png", png(3), None)]
    assert source[-1] == source[5]
    assert decode(source[4].data)[0, 0].tolist() == [4] * 3
    bare = open_source(uri, labels=False)
    assert (bare.classes, bare[1].label) == (None, None)
    assert chunks_of(source) is None
    with pytest.raises(IndexError):
        source[6]


def test_splits(tmp_path: Path) -> None:
    DatasetDict({"train": pets(), "test": pets(6, 2)}).save_to_disk(tmp_path / "pets")
    assert open_source(f"hf:{tmp_path}/pets:test").ids == ("6.png", "7.png")
    assert f"its splits are train, test; choose one, e.g. hf:{tmp_path}/pets:train" in refusal(f"hf:{tmp_path}/pets")
    assert "no such split; there are train, test; did you mean train?" in refusal(f"hf:{tmp_path}/pets:tarin")
    DatasetDict({"only": pets()}).save_to_disk(tmp_path / "one")
    assert len(open_source(f"hf:{tmp_path}/one")) == 6
    pets().save_to_disk(tmp_path / "bare")
    assert "without splits; leave :train out" in refusal(f"hf:{tmp_path}/bare:train")


def test_a_folder_of_parquet_as_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "pets" / "data").mkdir(parents=True)
    pets().to_parquet(tmp_path / "pets" / "data" / "train-00000-of-00002.parquet")
    pets(6, 3).to_parquet(tmp_path / "pets" / "data" / "train-00001-of-00002.parquet")
    pets(9, 1).to_parquet(tmp_path / "pets" / "data" / "test-00000-of-00001.parquet")
    source = open_source(f"hf:{tmp_path}/pets:train")
    assert source.ids == tuple(f"{n}.png" for n in range(9))
    assert source.classes == ("cat", "dog")
    assert [sample.data for sample in samples(source)] == [png(n) for n in range(9)]
    direct = open_source(f"parquet:{tmp_path}/pets/data/train-*.parquet")
    assert samples(direct) == samples(source)


def test_a_folder_of_image_files_has_paths_as_ids(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "pets" / "train" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    source = open_source(f"hf:{tmp_path}/pets:train")
    assert sorted(source.ids) == ["train/cat/0.png", "train/cat/2.png", "train/dog/1.png", "train/dog/3.png"]
    for sample in samples(source):
        assert sample.data == (tmp_path / "pets" / sample.id).read_bytes()
        assert sample.label == int("dog" in sample.id)
    (tmp_path / "pets" / source.ids[2]).unlink()
    with pytest.raises(UndecodableImage, match="has no image bytes"):
        source[2]


def folder_of(root: Path, *folders: str) -> str:
    """A plain folder of image files, two of the classes cat and dog in each of its folders."""
    for number in range(4 * len(folders)):
        path = root / folders[number // 4] / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return f"hf:{root}"


def test_files_that_are_in_no_split_are_not_left_out_in_silence(tmp_path: Path) -> None:
    uri = folder_of(tmp_path / "pets", "train", "holdout")
    said = refusal(uri)
    assert "no split is named, and 4 of its 8 files (e.g. holdout/cat/4.png) are in none" in said
    assert f"take {uri}:train for that, or folder:{tmp_path}/pets for all images" in said
    assert len(open_source(f"{uri}:train")) == 4
    (tmp_path / "pets" / "README.md").write_text('---\nconfigs:\n- config_name: x\n  data_files: "train/**"\n---\n')
    assert len(open_source(uri)) == 4


@pytest.mark.parametrize("folders", [(".",), ("holdout", "extra"), ("test",)])
def test_a_folder_with_all_files_in_one_split_needs_no_name_of_it(tmp_path: Path, folders: tuple[str, ...]) -> None:
    uri = folder_of(tmp_path / "pets", *folders)
    (tmp_path / "pets" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / ".hidden.png").write_bytes(png(1))
    assert len(open_source(uri)) == 4 * len(folders)


def test_columns_can_be_named_and_the_only_image_column_is_found(tmp_path: Path) -> None:
    sound = {"bytes": b"RIFF", "path": "x.wav"}
    columns: dict[str, list[Any]] = {
        "photo": [image(1), image(2)],
        "image": [sound, sound],
        "fine": [4, 0],
        "kind": ["x", "y"],
        "key": ["k1", "k2"],
    }
    features = {
        "photo": Image(),
        "image": {"bytes": Value("binary"), "path": Value("string")},
        "fine": Value("int64"),
        "kind": Value("string"),
        "key": Value("string"),
    }
    made(columns, features).save_to_disk(tmp_path / "a")
    source = open_source(f"hf:{tmp_path}/a?id=key")
    assert [(sample.id, sample.data, sample.label) for sample in samples(source)] == [
        ("k1", png(1), 4),
        ("k2", png(2), 0),
    ]
    other = open_source(f"hf:{tmp_path}/a?image=image&label=kind&id=key")
    assert (other[0].data, other.classes) == (b"RIFF", ("x", "y"))


def plain(folder: Path, images: list[Any]) -> str:
    """A folder with one Parquet file that `datasets` did not write."""
    folder.mkdir()
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, struct)}), folder / "train.parquet")
    return f"hf:{folder}"


@pytest.mark.parametrize("paths", [[None] * 3, ["a.png"] * 3, ["a", None, "b"], ["/far/a", "/far/b", "/far/c"]])
def test_ids_without_unique_paths_are_content_hashes(tmp_path: Path, paths: list[str | None]) -> None:
    source = open_source(plain(tmp_path / "a", [image(n % 2, path) for n, path in enumerate(paths)]))
    assert source.ids[2] == source.ids[0] + ".1"
    assert len(source.ids[0]) == 16
    assert source.classes is None


def test_R16_an_image_without_bytes_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.png").write_bytes(png(9))  # a path in a table is no reason to read files of where we stand
    source = open_source(plain(tmp_path / "a", [image(0), None, {"bytes": None, "path": "mine.png"}, image(3)]))
    assert (source[0].data, source[3].data) == (png(0), png(3))
    for index in (1, 2):
        with pytest.raises(UndecodableImage, match="has no image bytes"):
            source[index]


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("?imgae=a", "unknown key 'imgae' (known are image, label, id); did you mean image?"),
        ("?image=c", "image=c: no such column; columns are a, b, n, gap"),
        ("?image=n", "holds int64, not encoded images"),
        ("", "several image columns (a, b); name one with ?image=COLUMN"),
        ("?image=a&id=n", "the id '0' stands twice in column 'n'"),
        ("?image=a&id=gap", "is empty in row 1"),
        ("?image=a&label=gap", "'gap': holds neither"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, query: str, match: str) -> None:
    features = {"a": Image(), "b": Image(), "n": Value("int64"), "gap": Value("float64")}
    made({"a": [image(0)] * 2, "b": [image(1)] * 2, "n": [0, 0], "gap": [1.5, None]}, features).save_to_disk(
        tmp_path / "x"
    )
    assert match in refusal(f"hf:{tmp_path}/x{query}")


def test_data_sets_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such folder" in refusal(f"hf:{tmp_path}/absent")
    assert "no such folder" in refusal("hf:./absent:train")
    assert "nobody/nothing" in refusal("hf:nobody/nothing")
    (tmp_path / "empty").mkdir()
    assert f"hf:{tmp_path}/empty" in refusal(f"hf:{tmp_path}/empty")
    made({"n": [1]}, {"n": Value("int64")}).save_to_disk(tmp_path / "numbers")
    assert "no image column; name one with ?image=COLUMN; columns are n" in refusal(f"hf:{tmp_path}/numbers")
    assert "cannot be loaded (ArrowInvalid: BatchSize" in refusal(plain(tmp_path / "none", []))
    assert f"did you mean 'hf:{tmp_path}/numbers'" in refusal(f"{tmp_path}/numbers")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install buttress[hf]" in refusal(f"hf:{tmp_path}/numbers")


def test_R7_code_beside_the_data_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    assert "scripts are no longer supported" in refusal(f"hf:{tmp_path}/evil")
    assert not (tmp_path / "harm").exists()


def test_another_process_reads_it_and_the_pickle_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    columns = {"image": [{"bytes": noise.bytes(50_000), "path": f"{n}.png"} for n in range(8)]}
    made(columns, {"image": Image()}).save_to_disk(tmp_path / "a")
    packed = pickle.dumps(open_source(f"hf:{tmp_path}/a"))
    assert len(packed) < 8_000
    (tmp_path / "packed").write_bytes(packed)
    code = "import pickle, sys; s = pickle.load(open(sys.argv[1], 'rb')); print([len(s[i].data) for i in range(8)])"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "packed")], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str([50_000] * 8)


def test_cifar(real_data: Path) -> None:
    folder = real_data / "cifar100"
    direct = open_source(f"parquet:{folder}/test.parquet?label=fine_label")
    source = open_source(f"hf:{folder}:test?label=fine_label")
    assert source.ids == direct.ids
    assert source.labels.tolist() == direct.labels.tolist()
    assert source.classes == tuple(map(str, range(100)))  # the file names its classes for `parquet:` alone
    assert source[777] == direct[777]

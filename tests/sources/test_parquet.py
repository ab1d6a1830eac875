"""Parquet files of images: columns, class names, ids, random access, and workers."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.sources.every_source import refusal, samples

from buttress.errors import SourceError
from buttress.sources import ParquetSource, UndecodableImage, decode, image_size, open_source

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None, rows: int = 3) -> str:
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=rows)
    return f"parquet:{path}"


def images(*names: str, path: bool = True) -> pa.Array:
    return pa.array([{"bytes": name.encode(), "path": f"{name}.png" if path else None} for name in names], STRUCT)


def test_the_hugging_face_layout(tmp_path: Path) -> None:
    features = {
        "info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["x", "y"], "_type": "ClassLabel"}}}
    }
    columns = {"image": images(*"abcdefgh"), "label": [0, 1, 0, None, 1, -1, 0, 1]}
    uri = write(tmp_path / "a.parquet", columns, {"huggingface": json.dumps(features)})
    source = open_source(uri)
    assert (source.uri, source.classes, len(source)) == (uri, ("x", "y"), 8)
    assert source.ids == tuple(f"{name}.png" for name in "abcdefgh")
    assert source.labels.tolist() == [0, 1, 0, -1, 1, -1, 0, 1]
    assert [(sample.data, sample.label) for sample in samples(source)][2:5] == [(b"c", 0), (b"d", None), (b"e", 1)]
    assert [source[index].data for index in (7, 0, 5, -1)] == [b"h", b"a", b"f", b"h"]
    bare = open_source(uri, labels=False)
    assert (bare.classes, bare[1].label) == (None, None)


def test_plain_binary_column_and_numbers_as_names(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.parquet", {"jpg": [b"one", b"two"], "other": ["p", "q"], "cls": [2, 0]}))
    assert source.classes == ("0", "1", "2")
    assert source[0].data == b"one"
    assert len(source.ids[0]) == 16


def test_text_labels_are_sorted_names(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.parquet", {"img": [b"1", b"2", b"3"], "label": ["dog", None, "cat"]}))
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [1, -1, 0]


def test_no_label_column_is_unlabelled(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.parquet", {"img": images("a"), "w": [1], "h": [2]}))
    assert source.classes is None


def test_columns_can_be_named(tmp_path: Path) -> None:
    columns = {"x": [b"a", b"b"], "y": [b"c", b"d"], "label": [0, 0], "fine grain": [1, 0], "key": ["k1", "k2"]}
    source = open_source(write(tmp_path / "a.parquet", columns) + "?image=y&label=fine%20grain&id=key")
    assert source.ids == ("k1", "k2")
    assert source.labels.tolist() == [1, 0]
    assert source[1].data == b"d"


def test_ids_without_unique_paths_are_content_hashes(tmp_path: Path) -> None:
    repeated = pa.array([{"bytes": data, "path": "same.png"} for data in (b"a", b"b", b"a")], STRUCT)
    source = open_source(write(tmp_path / "a.parquet", {"img": repeated}))
    assert source.ids[2] == source.ids[0] + ".1"
    assert source.ids == open_source(write(tmp_path / "b.parquet", {"img": images("a", "b", "a", path=False)})).ids


def test_several_files_in_sorted_order(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", {"img": images(*"defgh"), "label": [1] * 5})
    write(tmp_path / "a.parquet", {"img": images(*"abc"), "label": [0, 0, 2]})
    for uri in (f"parquet:{tmp_path}", f"parquet:{tmp_path}/*.parquet", f"parquet:{tmp_path}/?.parquet"):
        source = open_source(uri)
        assert [sample.data for sample in samples(source)] == [bytes([value]) for value in b"abcdefgh"]
        assert source.labels.tolist() == [0, 0, 2, 1, 1, 1, 1, 1]
        assert source.classes == ("0", "1", "2")


def test_files_of_other_columns_or_classes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"img": images("a"), "label": [0]}, {"label_names": '["x"]'})
    write(tmp_path / "b.parquet", {"img": images("b"), "label": [0]}, {"label_names": '["y"]'})
    assert "other classes" in refusal(f"parquet:{tmp_path}")
    write(tmp_path / "b.parquet", {"image": images("b"), "label": [0]})
    assert "has no column 'img'" in refusal(f"parquet:{tmp_path}")


def test_an_image_without_bytes_is_one_bad_image(tmp_path: Path) -> None:
    rows = pa.array([{"bytes": b"a", "path": "a"}, {"bytes": None, "path": "b"}, None], STRUCT)
    source = open_source(write(tmp_path / "a.parquet", {"img": rows}))
    assert source[0].data == b"a"
    for index in (1, 2):
        with pytest.raises(UndecodableImage, match="has no image bytes"):
            source[index]


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("?imgae=img", "unknown key 'imgae' (known are image, label, id); did you mean image?"),
        ("?image=imgs", "no such column; columns are img, label, gap; did you mean img?"),
        ("?image=label", "holds int64, not encoded images"),
        ("?label=", "must name one column"),
        ("?label=img", "neither integers nor texts"),
        ("?id=label", "id '0' stands twice"),
        ("?id=gap", "is empty in row 1"),
    ],
)
def test_queries_that_do_not_fit(tmp_path: Path, query: str, match: str) -> None:
    columns = {"img": images("a", "b"), "label": [0, 0], "gap": ["x", None]}
    assert match in refusal(write(tmp_path / "a.parquet", columns) + query)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    assert "no Parquet file found" in refusal(f"parquet:{tmp_path}/absent.parquet")
    assert "no Parquet file found" in refusal(f"parquet:{tmp_path}")
    (tmp_path / "text.parquet").write_text("hello")
    assert "cannot be read as Parquet" in refusal(f"parquet:{tmp_path}/text.parquet")
    assert "found 0 rows" in refusal(write(tmp_path / "a.parquet", {"img": images()}))
    assert "no image column" in refusal(write(tmp_path / "a.parquet", {"label": [1]}))
    two = {"p": [b"1"], "q": [b"2"]}
    assert "several image columns (p, q); name one with ?image=COLUMN" in refusal(write(tmp_path / "a.parquet", two))


@pytest.mark.parametrize(
    ("labels", "names", "match"),
    [
        ([0, 2], '["x", "y"]', "label 2 is outside the 2 classes"),
        ([0, 1], '["x", "x"]', "two classes of column 'label' are named 'x'"),
        ([0, 1], "{not json", "not valid JSON"),
        ([0, 1], '"xy"', "not a list of texts"),
        ([0, -3], '["x", "y"]', "label -3"),
        ([0, 70_000], "null", "does not look like a class number"),
        ([0, 2**62], "null", "does not look like a class number"),
        (["x", "z"], '["x", "y"]', "'z' is not among the class names"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: list[Any], names: str, match: str) -> None:
    columns = {"img": images("a", "b"), "label": labels}
    assert match in refusal(write(tmp_path / "a.parquet", columns, {"label_names": names}))


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = write(tmp_path / "a.parquet", {"img": images("a")})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install buttress[parquet]" in refusal(uri)


def test_a_damaged_page_names_the_file(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", {"img": pa.array([bytes(1000), b"x" * 3000]), "key": ["a", "b"]})
    source = open_source(uri + "?id=key")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4:40] = b"\xff" * 36
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read as Parquet"):
        source[0]


def test_the_cache_is_bounded_and_stays_out_of_the_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buttress.sources.parquet._CACHE_BYTES", 250)
    names = list("abcdefghi")
    contents = [name.encode() * 50 for name in names]
    source = open_source(write(tmp_path / "a.parquet", {"img": contents, "id": names}) + "?id=id")
    assert isinstance(source, ParquetSource)
    fresh = len(pickle.dumps(source))
    assert [sample.data for sample in samples(source)] == contents
    assert len(source._cache) == 1
    assert len(pickle.dumps(source)) == fresh
    again = pickle.loads(pickle.dumps(source))
    assert [sample.data for sample in samples(again)] == contents


def test_row_groups_are_chunks_where_they_do_not_all_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = write(tmp_path / "a.parquet", {"img": [bytes([n]) * 1000 for n in range(8)]})
    source = open_source(uri)
    assert isinstance(source, ParquetSource)
    assert source.chunks is None
    monkeypatch.setattr("buttress.sources.parquet._CACHE_BYTES", 11_000)
    source = open_source(uri)
    assert isinstance(source, ParquetSource)
    assert source.chunks is not None
    assert source.chunks.of.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert source.chunks.window == 2


def test_cifar(real_data: Path) -> None:
    uri = f"parquet:{real_data}/cifar100/train.parquet"
    source = open_source(uri)
    assert len(source) == len(set(source.ids)) == 20_000
    assert source.classes is not None
    assert (len(source.classes), source.classes[73]) == (100, "shark")
    assert source.ids[0] == "shark_s_001600.png"
    assert source[0].label == 73
    for index in (0, 19_999, 777):
        sample = pickle.loads(pickle.dumps(source))[index]
        assert sample == source[index]
        assert decode(sample.data).shape == (32, 32, 3)
        assert image_size(sample.data) == (32, 32)
    coarse = open_source(uri + "?label=coarse_label")
    assert coarse.classes is not None
    assert len(coarse.classes) == 20


def test_cifar_test_paths_repeat_so_ids_are_hashes(real_data: Path) -> None:
    source = open_source(f"parquet:{real_data}/cifar100/test.parquet")
    assert len(set(source.ids)) == 10_000
    assert len(source.ids[0]) == 16

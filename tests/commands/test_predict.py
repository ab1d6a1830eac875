"""`buttress predict` and `buttress models` as a user runs them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from buttress.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits, hardly trained."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--recipe", "digits-teacher.smoke", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two hundred digits as PNGs in class folders, with names that need quoting in a table."""
    import cv2

    from buttress.sources import open_source

    source = open_source("digits")
    folder = tmp_path_factory.mktemp("digits")
    for place in range(200):
        path = folder / str(source.labels[place]) / f'{place:03d}, "x".png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.asarray(source[place].data))
    return folder


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_top_1_of_the_table_is_that_of_evaluate(run, images, tmp_path, capsys):
    data = f"folder:{images}"
    assert (
        main(["predict", str(run), "--source", data, "--workers", "0", "--out", str(tmp_path / "new" / "p.csv")]) == 0
    )
    assert "p.csv: 200 rows\n" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data", data, "--workers", "0", "--out", str(tmp_path / "e.json")]) == 0
    rows = rows_of(tmp_path / "new" / "p.csv")
    figure = json.loads((tmp_path / "e.json").read_text())["top1"]
    assert figure["count"] == len(rows) == 200
    assert figure["value"] == sum(row["class"] == row["label"] for row in rows) / 200
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert all(row["id"].startswith(f"{row['label']}/") for row in rows)


def test_parquet_holds_what_csv_holds_without_labels_too(run, images, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in images.rglob("*.png"):
        (flat / path.name).write_bytes(path.read_bytes())
    (flat / "000 broken.png").write_bytes(b"\x89PNG")
    words = [
        "predict",
        f"run:{run}",
        "--source",
        f"folder:{flat}",
        "--top-k",
        "2",
        "--workers",
        "0",
        "--max-bad",
        "0.1",
    ]
    for name in ("p.csv", "p.parquet"):
        assert main([*words, "--out", str(tmp_path / name)]) == 0
    table = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert len(table) == 201
    for ours, theirs in zip(rows_of(tmp_path / "p.csv"), table, strict=True):
        assert ours.keys() == theirs.keys() == {"id", "label", "class", "probability", "class_2", "probability_2"}
        assert ours["id"] == theirs["id"]
        assert (ours["label"], theirs["label"]) == ("", None)
        assert ours["class_2"] == (theirs["class_2"] or "")
        if theirs["probability"] is None:
            assert ours["probability"] == ""
        else:
            assert float(ours["probability"]) == pytest.approx(theirs["probability"], abs=1e-6)
    assert [row["id"] for row in table if row["class"] is None] == ["000 broken.png"]


def test_misuse_is_told_in_one_line_before_the_model_is_loaded(run, images, tmp_path, capsys):
    source = ["--source", f"folder:{images}"]
    cases = [
        ([str(run), *source, "--out", "p.xlsx"], "neither .csv nor .parquet"),
        ([str(run), *source], "--out is required"),
        ([str(tmp_path / "no"), *source, "--out", "p.csv"], "no such run folder"),
        ([str(run), "--source", "folder:no", "--out", "p.csv"], "no such folder"),
    ]
    for words, expected in cases:
        capsys.readouterr()
        assert main(["predict", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert expected in error


def test_models_are_listed_for_a_pipe_and_as_json(capsys):
    assert main(["models", "timm:test_vit?.*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"test_vit{n}.r160_in1k\t1000\t160\tapache-2.0" for n in (2, 3)]
    assert main(["models", "test_vit4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["models"] == [{"name": "test_vit4", "classes": 1000, "size": "160", "licence": "-"}]
    assert "timm:NAME.TAG" in document["uris"]
    assert main(["models", "test_vitt"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean test_vit" in error


def test_models_at_a_terminal_have_a_heading_and_the_ways_to_name_one(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["models", "test_vit4"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("NAME       CLASSES  SIZE  LICENCE\ntest_vit4  1000     160   -\n\n1 models.")
    assert "run:DIR" in text


def test_a_closed_pipe_is_no_error():
    code = "import sys; from buttress.cli import main; sys.exit(main(['models']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141

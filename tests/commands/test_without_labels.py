"""Images without labels, and images of which only some have one: reinforced, verified, trained on and scored."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from buttress.cli import main
from buttress.loading.batches import ReinforcedBatches
from buttress.runs.run import open_run
from buttress.sources import open_source
from buttress.store.reader import open_reinforcement

MODEL = "timm:test_resnet"


@pytest.fixture
def loose(photos, tmp_path):
    """The photos without class folders."""
    (tmp_path / "loose").mkdir()
    for path in photos.rglob("*.png"):
        shutil.copy(path, tmp_path / "loose" / f"{path.parent.name}-{path.name}")
    return tmp_path / "loose"


def test_an_unlabelled_folder_teaches_the_teachers_classes(photos, loose, colour_teacher, tmp_path, capsys):
    plus, out = str(tmp_path / "plus"), tmp_path / "run"
    words = ["--source", f"folder:{loose}", "--teacher", colour_teacher, "--views=3", "--k=2", "--workers=0"]
    assert main(["reinforce", *words, "--out", plus]) == 0
    assert "the images have no classes, so its own are kept" in capsys.readouterr().err
    store = open_reinforcement(plus)
    assert store.classes == ("blue", "green", "red")
    assert (store.hard_labels == -1).all()
    assert np.isnan(store.truth(np.arange(24), 0)).all()
    assert main(["verify", plus, "--source", f"folder:{loose}"]) == 0
    assert "72 views asked again" in capsys.readouterr().out
    train = ["--model", MODEL, "--data", f"folder:{loose}", "--reinforcement", plus, "--val", f"folder:{photos}"]
    train += ["--size=32", "--epochs=8", "--batch=8", "--lr=0.01", "--workers=0", "--out", str(out)]
    assert main(["train", *train]) == 0
    run = open_run(out)
    assert run.classes == ("blue", "green", "red")
    losses = [line["loss"] for line in run.read_metrics()]
    assert losses[-1] < losses[0]
    assert main(["evaluate", str(out), "--data", f"folder:{photos}", "--workers=0"]) == 0
    assert "24 images" in capsys.readouterr().out


@pytest.fixture
def partly(photos, tmp_path):
    """URI of the photos in a Parquet file that labels every fourth."""
    paths = sorted(photos.rglob("*.png"))
    classes = ["blue", "green", "red"]
    columns = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
        "label": [classes.index(path.parent.name) if i % 4 == 0 else None for i, path in enumerate(paths)],
    }
    table = pa.table(columns).replace_schema_metadata({"label_names": json.dumps(classes)})
    pq.write_table(table, tmp_path / "photos.parquet")
    return f"parquet:{tmp_path / 'photos.parquet'}"


def test_images_of_which_some_have_a_label(partly, photos, colour_teacher, tmp_path, capsys):
    plus, out = str(tmp_path / "plus"), tmp_path / "run"
    words = ["--source", partly, "--teacher", colour_teacher, "--views=3", "--k=2", "--workers=0", "--truth"]
    assert main(["reinforce", *words, "--out", plus]) == 0
    assert "agrees with your labels on 6 of 6 images" in capsys.readouterr().err
    assert main(["verify", plus, "--source", partly]) == 0
    source, store = open_source(partly), open_reinforcement(plus)
    assert store.hard_labels.tolist() == source.labels.tolist()
    assert (np.isnan(store.truth(np.arange(24), 1)) == (source.labels < 0)).all()
    batch = ReinforcedBatches(source, store, size=24, p=0.0).batch(range(24), 0)
    assert batch.values_BK is not None
    np.testing.assert_array_equal(batch.values_BK[:, 0] == 1, source.labels >= 0)  # at p = 0 a label is taken if any
    train = ["--model", MODEL, "--data", partly, "--reinforcement", plus, "--val", f"folder:{photos}"]
    train += ["--size=32", "--epochs=8", "--batch=8", "--lr=0.01", "--workers=0", "--out", str(out)]
    assert main(["train", *train]) == 0
    losses = [line["loss"] for line in open_run(out).read_metrics()]
    assert losses[-1] < losses[0]
    assert open_run(out).classes == ("blue", "green", "red")

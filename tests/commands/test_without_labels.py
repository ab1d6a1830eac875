"""Images without labels, and images of which only some have one: reinforced, verified, trained on and scored."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from buttress.cli import main
from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.loading.batches import ReinforcedBatches
from buttress.runs.run import open_run
from buttress.sources import Relabelled, open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.training.settings import TrainingSettings
from buttress.training.train import TrainingData, train_on_source
from buttress.views.presets import preset

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
    assert "the source has no classes, so the teacher's own are kept" in capsys.readouterr().err
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


def test_images_of_which_some_have_a_label(photos, colour_teacher, tmp_path):
    source = open_source(f"folder:{photos}")
    partly = Relabelled(source, np.where(np.arange(24) % 4 == 0, source.labels, -1))
    spec = TeacherSpec(uri=colour_teacher, source_classes=partly.classes)
    label_source(partly, spec, preset("crop"), LabelSettings(views=2, k=2, workers=0), tmp_path / "plus")
    store = open_reinforcement(tmp_path / "plus")
    assert store.hard_labels.tolist() == partly.labels.tolist()
    batch = ReinforcedBatches(partly, store, size=24, p=0.0).batch(range(24), 0)
    assert batch.values_BK is not None
    hard_B = batch.values_BK[:, 0] == 1
    np.testing.assert_array_equal(hard_B, partly.labels >= 0)  # with p = 0 all that has a label takes it
    settings = TrainingSettings(epochs=1, batch=8, workers=0)
    data = TrainingData(source=partly, reinforcement=store)
    run = train_on_source(data, model=MODEL, out=tmp_path / "run", settings=settings, size=32)
    assert run.finished
    assert run.classes == ("blue", "green", "red")

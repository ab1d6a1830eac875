"""timm's loader, and the file of docs/trainers.md that puts a reinforced dataset into timm's train.py."""
# mypy: disable-error-code="attr-defined"
# (timm re-exports without saying so)

from __future__ import annotations

import json
import runpy
import sys
from typing import Any

import cv2
import numpy as np
import pytest
import timm.data
import torch
from tests.code_blocks import PROJECT, block_with
from timm.loss import LabelSmoothingCrossEntropy

from buttress.loading.dataset import ReinforcedDataset
from buttress.sources import open_source

PAGE = PROJECT / "docs" / "trainers.md"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ASKS_FOR_DATA = """
import json, sys
from timm.data import create_dataset
train = create_dataset("", root="photos", split="train", is_training=True, class_map="", batch_size=4)
held = create_dataset("", root="photos", split="train", is_training=False, class_map="", batch_size=4)
labels = {held.filename(i): label for i, (_, label) in enumerate(held.reader.samples)}
print(json.dumps({"train": type(train).__name__, "labels": labels, "flags": sys.argv}))
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_timms_prefetcher_hands_on_views_and_soft_targets(setup, workers):
    given: Any = ReinforcedDataset(setup.source, setup.store, size=32)
    wanted = ReinforcedDataset(setup.source, setup.store, size=32, normalize=(MEAN, STD))
    loader = timm.data.create_loader(
        given, (3, 32, 32), batch_size=24, mean=MEAN, std=STD, num_workers=workers, device=torch.device("cpu")
    )
    for epoch in (0, 3):
        given.set_epoch(epoch)
        wanted.set_epoch(epoch)
        ((images, targets),) = loader
        torch.testing.assert_close(images, torch.stack([wanted[i][0] for i in range(24)]), atol=1e-5, rtol=1e-5)
        assert torch.equal(targets, torch.stack([wanted[i][1] for i in range(24)]))


def test_labels_that_are_smoothed_or_mixed_are_no_targets_of_ours():
    """Smoothing is an error; mixing is none, which is why the file refuses its flags."""
    targets = torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]])
    with pytest.raises(RuntimeError, match="int64"):
        LabelSmoothingCrossEntropy(0.1)(torch.zeros(2, 3), targets)
    mixed = timm.data.FastCollateMixup(mixup_alpha=0.5, num_classes=3)
    _, wrong = mixed([(torch.zeros(3, 4, 4, dtype=torch.uint8), target) for target in targets])
    assert not torch.allclose(wrong, targets)


@pytest.fixture
def numbered(setup, tmp_path, monkeypatch):
    """The file of the page, beside photos whose class folders timm puts into another order than we do."""
    for label, name in enumerate(("c10", "c2", "c3")):
        folder = tmp_path / "numbered" / "photos" / "train" / name
        folder.mkdir(parents=True)
        for number in range(4):
            cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 20, 3), 60 * label + number, np.uint8))
    monkeypatch.chdir(tmp_path / "numbered")
    block = block_with(PAGE, "runpy")
    (tmp_path / "numbered" / str(block.file)).write_text(block.text)
    (tmp_path / "numbered" / "asks.py").write_text(ASKS_FOR_DATA)
    monkeypatch.setattr(timm.data, "create_dataset", timm.data.create_dataset)  # put back after the test
    return open_source("folder:photos/train")


def run_file(flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_plus.py", "folder:photos/train", "photos+", "24", "asks.py", *flags])
    runpy.run_path("train_plus.py", run_name="__main__")


def test_the_file_gives_both_sets_the_same_class_numbers(numbered, colour_teacher, monkeypatch, capsys, tmp_path):
    from buttress.cli import main

    classes = tmp_path / "classes.yaml"
    classes.write_text("c10: blue\nc2: green\nc3: red\n")
    command = ["reinforce", "--source=folder:photos/train", f"--teacher={colour_teacher}", f"--class-map={classes}"]
    assert main([*command, "--views=1", "--workers=0", "--out=photos+"]) == 0
    capsys.readouterr()
    run_file(["--smoothing", "0"], monkeypatch)
    asked = json.loads(capsys.readouterr().out)
    assert asked["train"] == "ReinforcedDataset"
    assert asked["flags"] == ["asks.py", "--smoothing", "0", "--img-size", "24", "--num-classes", "3"]
    ours = dict(zip(numbered.ids, numbered.labels.tolist(), strict=True))
    assert asked["labels"] == ours
    with pytest.raises(AssertionError, match="--mixup"):
        run_file(["--mixup=0.2"], monkeypatch)

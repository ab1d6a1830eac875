"""The Lightning module of docs/trainers.md: every epoch has its own views, also with workers and after a resume."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import timm
import torch
from tests.code_blocks import PROJECT, block_with
from torch.utils.data import DataLoader

from buttress.loading.dataset import ReinforcedDataset

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in (
        r"`isinstance\(treespec, LeafSpec\)`:FutureWarning",  # of torch, for what Lightning calls
        "You defined a `validation_step` but have no `val_dataloader`",
        "The 'train_dataloader' does not have many workers",
        "The 'val_dataloader' does not have many workers",
    )
]
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


@pytest.fixture
def student(setup, monkeypatch):
    """The module, with a small model, that notes (epoch, images, targets) of every batch it trains on."""
    small = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: small("test_resnet", **options))
    documented: Any = block_with(PROJECT / "docs" / "trainers.md", "LightningModule").definitions()["Student"]

    class Noted(documented):  # type: ignore[misc]
        def training_step(self, batch, index):
            self.seen.append((self.current_epoch, *batch))
            return super().training_step(batch, index)

    scale = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    Noted.seen = []
    return Noted(ReinforcedDataset(setup.source, setup.store, size=32, normalize=scale))


def views_of(dataset, epoch):
    """The pixels and targets that an epoch has, whatever the order of its samples."""
    dataset.set_epoch(epoch)
    return seen_in(*zip(*(dataset[i] for i in range(len(dataset))), strict=True))


def seen_in(images, targets):
    pixels = [((image + 1) * 127.5).round().byte().contiguous().numpy().tobytes() for image in images]
    return {(view, *target.tolist()) for view, target in zip(pixels, targets, strict=True)}


def assert_own_views(student, epochs):
    assert [epoch for epoch, _, _ in student.seen] == epochs
    for epoch, images, targets in student.seen:
        assert seen_in(images, targets) == views_of(student.plus, epoch)
    assert len({frozenset(views_of(student.plus, epoch)) for epoch in epochs}) == len(epochs)


def use_batches_of(student, monkeypatch, **options):
    """The page's loader with whole epochs as batches."""
    loader = DataLoader(student.plus, batch_size=24, shuffle=True, drop_last=True, **options)
    made = student.train_dataloader
    monkeypatch.setattr(student, "train_dataloader", lambda: (made(), loader)[1])


@pytest.mark.parametrize("options", [{}, {"num_workers": 1, "persistent_workers": True}], ids=["in process", "worker"])
def test_every_epoch_trains_on_its_own_views(student, monkeypatch, options):
    use_batches_of(student, monkeypatch, **options)
    pl.Trainer(max_epochs=3, enable_checkpointing=False, **QUIET).fit(student)
    assert_own_views(student, [0, 1, 2])


def test_a_resumed_training_goes_on_with_the_next_views(student, monkeypatch, tmp_path):
    options = {"num_workers": 1, "persistent_workers": True}
    use_batches_of(student, monkeypatch, **options)
    first = pl.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    first.fit(student)
    first.save_checkpoint(tmp_path / "one.ckpt")
    student.plus.set_epoch(0)
    use_batches_of(student, monkeypatch, **options)
    pl.Trainer(max_epochs=3, enable_checkpointing=False, **QUIET).fit(student, ckpt_path=tmp_path / "one.ckpt")
    assert_own_views(student, [0, 1, 2])


def test_validation_is_on_hard_labels(student, setup, monkeypatch):
    use_batches_of(student, monkeypatch)
    labels = setup.source.labels.tolist()
    pairs: Any = [(student.plus[i][0], label) for i, label in enumerate(labels)]
    val: DataLoader[Any] = DataLoader(pairs, batch_size=24)
    trainer = pl.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    trainer.fit(student, val_dataloaders=val)
    ((images, labels_B),) = val
    with torch.no_grad():
        right = (student.model.eval()(images).argmax(dim=1) == labels_B).float().mean()
    assert trainer.callback_metrics["top1"].item() == pytest.approx(right.item())

"""What docs/trainers.md gives the Hugging Face trainer: the loss, the columns, the callback that changes the views."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.code_blocks import PROJECT, block_with
from torch.nn.functional import cross_entropy
from torch.utils.data import Subset
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, Trainer, TrainingArguments

SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
    "save_strategy": "no",
    "seed": 0,
}
SETTINGS |= {"remove_unused_columns": False, "dataloader_drop_last": True, "max_grad_norm": 0}


@pytest.fixture
def documented():
    """The functions and the callback of the page."""
    return block_with(PROJECT / "docs" / "trainers.md", "TrainerCallback").definitions()


def trainer_of(setup, documented, dataset, out, callbacks=(), eval_dataset=None, **settings):
    """The page's trainer for a small model without batch norm: the split of a batch then changes nothing."""
    labels: dict[str, Any] = {"num_labels": len(setup.store.classes)}
    torch.manual_seed(0)
    model = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_convnext", **labels))
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(out), num_train_epochs=setup.epochs, **SETTINGS, **settings),
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        data_collator=documented["collate"],
        compute_loss_func=documented["soft_cross_entropy"],
        compute_metrics=documented["top1"],
        callbacks=list(callbacks),
        optimizers=setup.optimizer_of(model.timm_model),
    )


def test_batches_that_are_accumulated_count_as_one(setup, documented, tmp_path):
    setup = replace(setup, model="test_convnext")
    ends = []
    for batch, accumulated in ((24, 1), (8, 3)):
        trainer = trainer_of(
            setup,
            documented,
            setup.dataset(),
            tmp_path,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
        )
        start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
        assert trainer.state.global_step == setup.epochs
        ends.append(trainer.model.state_dict())
    assert distance(*ends) < 1e-5 < 1e-2 < distance(start, ends[0])


def distance(one, other):
    return max(float((one[name] - value).abs().max()) for name, value in other.items())


def test_the_callback_changes_the_views_where_accelerate_does_not(setup, documented, tmp_path):
    """A subset hides the dataset's `set_epoch`, as the samplers of several processes do."""
    plus, seen = setup.dataset(), []
    documented["plus"] = plus
    collate = documented["collate"]

    def note(samples):
        seen.append(collate(samples))
        return seen[-1]

    dataset = Subset(plus, range(24))
    trainer = trainer_of(
        setup,
        {**documented, "collate": note},
        dataset,
        tmp_path,
        [documented["NextView"]()],
        per_device_train_batch_size=24,
    )
    trainer.train()
    assert len(seen) == setup.epochs
    for epoch, batch in enumerate(seen):
        plus.set_epoch(epoch)
        expected = collate([plus[i] for i in range(24)])
        for column in ("pixel_values", "labels"):
            assert sorted_rows(batch[column]) == sorted_rows(expected[column])
    assert len({str(sorted_rows(batch["pixel_values"])) for batch in seen}) == setup.epochs


def sorted_rows(values):
    return sorted(row.contiguous().numpy().tobytes() for row in values)


def test_evaluation_is_on_hard_labels(setup, documented, tmp_path):
    plus = setup.dataset()
    val = [(plus[i][0], label) for i, label in enumerate(setup.source.labels.tolist())]
    trainer = trainer_of(setup, documented, plus, tmp_path, eval_dataset=val, per_device_eval_batch_size=24)
    found = trainer.evaluate()
    images, labels = torch.stack([image for image, _ in val]), torch.tensor([label for _, label in val])
    with torch.no_grad():
        logits = trainer.model.eval()(images).logits
    assert found["eval_loss"] == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-4)
    assert found["eval_top1"] == pytest.approx((logits.argmax(dim=1) == labels).float().mean().item())

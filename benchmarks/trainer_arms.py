"""One training, by Buttress and by other people's code: same model and first weights, views, targets, optimizer, rates.

Only the order of the images is each trainer's own. What the others do differently by themselves, and is set here:
timm's warm-up starts at `--warmup-lr` and cuts into the cosine (`--warmup-prefix` puts it before, as ours is); the
Hugging Face trainer clips gradients at norm 1, decays the weights of batch norms and starts at a rate of 0, so it is
given the optimizer and the schedule.
"""

from __future__ import annotations

import runpy
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, default_collate

from buttress.loading.dataset import ReinforcedDataset
from buttress.models.load import LoadedModel, at_size
from buttress.runs.resolve import resolve_model
from buttress.sources import Source
from buttress.store.reader import Reinforcement
from buttress.training.data import TrainingData
from buttress.training.optim import learning_rate
from buttress.training.rng import seed_everything
from buttress.training.settings import EngineSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from buttress.training.train import train_on_source

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that all trainers share.

    Args:
        source, store: the images, and what the teacher said of them.
        model: architecture of timm's, from scratch.
        size: side of the views, pixels.
        epochs, warmup_epochs: passes in all; those over which the rate rises.
        batch: images per update; the last, smaller batch of an epoch is left out.
        lr: peak learning rate.
        optimizer, weight_decay: an optimizer of timm's; biases and norms are not decayed.
        seed: of the weights, the views and the order.
    """

    source: Source
    store: Reinforcement
    model: str
    size: int
    epochs: int
    warmup_epochs: int
    batch: int
    lr: float
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    seed: int = 0

    def settings(self) -> TrainingSettings:
        """The same as `buttress train` takes it."""
        return TrainingSettings(
            epochs=self.epochs,
            batch=self.batch,
            lr=self.lr,
            seed=self.seed,
            precision="fp32",
            optimizer=OptimizerSettings(name=self.optimizer, weight_decay=self.weight_decay),
            schedule=ScheduleSettings(warmup=self.warmup_epochs / self.epochs),
            engine=EngineSettings(channels_last=False, checkpoint_every=self.epochs),
            workers=0,
        )

    def student(self) -> LoadedModel:
        """The model as it starts, with the weights that the seed gives."""
        seed_everything(self.seed)
        return at_size(resolve_model(f"timm:{self.model}", num_classes=len(self.store.classes)), self.size)

    def dataset(self, *, floats: bool = True) -> ReinforcedDataset:
        """Views and soft targets; as the model wants its images, or uint8."""
        wanted = self.student().preprocessing
        scale = (wanted.mean, wanted.std) if floats else None
        return ReinforcedDataset(self.source, self.store, size=self.size, seed=self.seed, normalize=scale)

    def loader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.dataset(), batch_size=self.batch, shuffle=True, drop_last=True)

    @property
    def updates_per_epoch(self) -> int:
        return len(self.source) // self.batch

    def optimizer_of(self, model: nn.Module) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """timm's optimizer, and a schedule to step after every update that gives each the rate it has in ours."""
        from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # re-exported without saying so

        optimizer = create_optimizer_v2(model, self.optimizer, lr=self.lr, weight_decay=self.weight_decay, momentum=0.9)
        total, schedule = self.epochs * self.updates_per_epoch, self.settings().schedule
        return optimizer, LambdaLR(optimizer, lambda update: learning_rate(min(update, total), total, 1.0, schedule))


def buttress(setup: Setup) -> State:
    """Ours."""
    with tempfile.TemporaryDirectory() as folder:
        data = TrainingData(source=setup.source, reinforcement=setup.store)
        out, settings = Path(folder) / "run", setup.settings()
        run = train_on_source(data, model=f"timm:{setup.model}", out=out, settings=settings, size=setup.size)
        return run.load_model().module.state_dict()


def plain(setup: Setup) -> State:
    """A loop of torch alone."""
    loader, model = setup.loader(), setup.student().module
    optimizer, schedule = setup.optimizer_of(model)
    model.train()
    for epoch in range(setup.epochs):
        cast(ReinforcedDataset, loader.dataset).set_epoch(epoch)
        for images, targets in loader:
            cross_entropy(model(images), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.state_dict()


def timm_script(setup: Setup, script: Path) -> State:
    """timm's train.py as it stands; only its dataset is replaced, and the model it makes is remembered."""
    import timm
    import timm.data

    made: list[nn.Module] = []
    create_model = timm.create_model

    def create_and_keep(*args: Any, **kwargs: Any) -> nn.Module:
        made.append(create_model(*args, **kwargs))
        assert _same(made[-1].state_dict(), setup.student().module.state_dict()), "started from other weights"
        return made[-1]

    dataset = setup.dataset(floats=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(timm.models, "create_model", create_and_keep),
        mock.patch.object(timm.data, "create_dataset", return_value=dataset),
        mock.patch.object(sys, "argv", [str(script), *timm_flags(setup), "--output", folder]),
    ):
        runpy.run_path(str(script), run_name="__main__")
    return made[0].state_dict()


def timm_flags(setup: Setup) -> list[str]:
    """What train.py is given. Its warm-up rises from `--warmup-lr`, the rate of the first update, to the peak."""
    warmup_updates = setup.warmup_epochs * setup.updates_per_epoch
    flags: dict[str, object] = {"model": setup.model, "num-classes": len(setup.store.classes), "img-size": setup.size}
    flags |= {"smoothing": 0, "batch-size": setup.batch, "seed": setup.seed, "device": "cpu", "workers": 0}
    flags |= {"opt": setup.optimizer, "lr": setup.lr, "weight-decay": setup.weight_decay, "sched": "cosine"}
    flags |= {"epochs": setup.epochs - setup.warmup_epochs, "warmup-epochs": setup.warmup_epochs}
    flags |= {"warmup-lr": setup.lr / max(warmup_updates, 1), "val-split": "", "checkpoint-hist": 1}
    return ["--sched-on-updates", "--warmup-prefix", *(f"--{name}={value}" for name, value in flags.items())]


def lightning(setup: Setup) -> State:
    """A module of Lightning's."""
    import pytorch_lightning as pl

    class Student(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = setup.student().module

        def on_train_epoch_start(self) -> None:
            loader.dataset.set_epoch(self.current_epoch)

        def training_step(self, batch: Any, index: int) -> Tensor:
            images, targets = batch
            return cross_entropy(self.model(images), targets)

        def configure_optimizers(self) -> Any:
            optimizer, schedule = setup.optimizer_of(self.model)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    loader: Any = setup.loader()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    student = Student()
    trainer = pl.Trainer(max_epochs=setup.epochs, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(student, loader)
    return student.model.state_dict()


def transformers(setup: Setup) -> State:
    """The trainer of Hugging Face's transformers, with its wrapper of timm models."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, Trainer, TrainingArguments

    student = setup.student().module
    labels: dict[str, Any] = {"num_labels": len(setup.store.classes)}
    model: Any = TimmWrapperForImageClassification(TimmWrapperConfig(architecture=setup.model, **labels))
    model.timm_model.load_state_dict(student.state_dict())  # the wrapper draws the head's weights anew
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=setup.epochs,
            per_device_train_batch_size=setup.batch,
            dataloader_drop_last=True,
            max_grad_norm=0,  # ours does not clip
            seed=setup.seed,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=setup.dataset(),
            data_collator=_as_columns,
            compute_loss_func=_soft_cross_entropy,
            optimizers=setup.optimizer_of(model.timm_model),
        ).train()
    trained: nn.Module = model.timm_model
    return trained.state_dict()


def _as_columns(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    images, targets = default_collate(samples)
    return {"pixel_values": images, "labels": targets}


def _soft_cross_entropy(outputs: Any, targets: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return cross_entropy(outputs.logits, targets)


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


OTHERS: dict[str, Callable[[Setup], State]] = {"plain": plain, "lightning": lightning, "transformers": transformers}

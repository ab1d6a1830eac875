"""What timm's train.py does, for tests: the same flags and the same pieces of timm in the same order, in one process.

It is not that script, which no package contains. Both are run by the same hook; where the script itself lies on the
machine (`BUTTRESS_TIMM_TRAIN`), a test shows that the two end with the same weights. Left out: distribution, mixed
precision, mixing, distillation, EMA, resuming and checkpoints.
"""
# mypy: disable-error-code="attr-defined"
# (timm re-exports without saying so)

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.models import create_model
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task import ClassificationTask
from timm.utils import (
    AverageMeter,
    accuracy,
    random_seed,
)
from torch import nn


def parser() -> argparse.ArgumentParser:
    """The flags, with the script's own defaults."""
    made = argparse.ArgumentParser()
    texts = {"data-dir": None, "dataset": "", "val-split": "validation", "model": "resnet50", "device": "cuda"}
    texts |= {"opt": "sgd", "sched": "cosine", "output": "", "experiment": ""}
    numbers = {"lr": None, "momentum": 0.9, "weight-decay": 2e-5, "warmup-lr": 1e-5, "min-lr": 0.0, "smoothing": 0.1}
    counts = {"num-classes": None, "img-size": None, "batch-size": 128, "workers": 4, "seed": 42}
    counts |= {"epochs": 300, "warmup-epochs": 5, "checkpoint-hist": 10}
    for kind, defaults in ((str, texts), (float, numbers), (int, counts)):
        for name, default in defaults.items():
            made.add_argument(f"--{name}", type=kind, default=default)
    for name in ("sched-on-updates", "warmup-prefix", "no-prefetcher"):
        made.add_argument(f"--{name}", action="store_true")
    made.set_defaults(input_size=None)  # or it would go before --img-size
    return made


def loaders(args: argparse.Namespace, config: dict[str, Any]) -> tuple[Any, Any]:
    """Training and evaluation batches; no evaluation where --val-split is empty."""
    options: dict[str, Any] = {"root": args.data_dir, "batch_size": args.batch_size, "input_img_mode": "RGB"}
    train = create_dataset(args.dataset, split="train", is_training=True, seed=args.seed, **options)
    shared = {"mean": config["mean"], "std": config["std"], "device": torch.device(args.device)}
    shared |= {"use_prefetcher": not args.no_prefetcher, "num_workers": args.workers, "batch_size": args.batch_size}
    batches = create_loader(train, config["input_size"], is_training=True, interpolation="random", **shared)
    if not args.val_split:
        return batches, None
    held = create_dataset(args.dataset, split=args.val_split, is_training=False, **options)
    looks = {"interpolation": config["interpolation"], "crop_pct": config["crop_pct"]}
    return batches, create_loader(held, config["input_size"], is_training=False, **shared, **looks)


def train_epoch(task: ClassificationTask, batches: Any, optimizer: Any, schedule: Any, epoch: int) -> float:
    """One pass; returns the mean loss."""
    if hasattr(batches.dataset, "set_epoch"):
        batches.dataset.set_epoch(epoch)
    task.trainable_module.train()
    losses = AverageMeter()
    for step, (images, targets) in enumerate(batches):
        loss = task(images, targets)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.update(loss.item(), len(images))
        schedule.step_update(num_updates=epoch * len(batches) + step + 1, metric=losses.avg)
    return losses.avg


@torch.inference_mode()
def top1(model: nn.Module, batches: Any) -> float:
    """Accuracy on hard labels, percent."""
    model.eval()
    hits = AverageMeter()
    for images, labels in batches:
        (share,) = accuracy(model(images), labels, topk=(1,))
        hits.update(share.item(), len(images))
    return hits.avg


def main() -> None:
    args = parser().parse_args()
    random_seed(args.seed, 0)
    model = create_model(args.model, pretrained=False, in_chans=3, num_classes=args.num_classes, drop_rate=0.0)
    config = resolve_data_config(vars(args), model=model)
    batches, held = loaders(args, config)
    criterion = LabelSmoothingCrossEntropy(args.smoothing) if args.smoothing else nn.CrossEntropyLoss()
    task = ClassificationTask(model, criterion=criterion, device=torch.device(args.device))
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=args))
    schedule, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(args), updates_per_epoch=len(batches))
    for epoch in range(epochs):
        line: dict[str, float] = {"epoch": epoch, "loss": train_epoch(task, batches, optimizer, schedule, epoch)}
        if held is not None:
            line["top1"] = top1(model, held)
        print(json.dumps(line), flush=True)
        schedule.step(epoch + 1, line.get("top1"))


if __name__ == "__main__":
    main()

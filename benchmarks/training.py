"""What a step costs: the same images, policy and student with hard labels, a reinforcement and a live teacher; what the
engine adds to a bare loop of torch on the same batches; and training from files beside the loop of timm's train.py.

    python -m benchmarks.training [--json FILE]   # a table of ratios
    python -m benchmarks.training --record        # and a line of docs/results/training.jsonl, docs/engine.md's table

CPU time of an epoch (one thread; worker processes counted), an epoch of one training, an epoch of the next, by turns
(benchmarks/turns.py), the median of the paired ratios with their smallest and largest (BUTTRESS_DATA):

- epoch_ratio, online_ratio, bare_ratio: an epoch from a store over one on hard labels, over one with a live teacher
  (of a quarter of the images, times four), and one on hard labels over the bare loop. CIFAR-100's images, timm's
  test_resnet at 32 px, teacher EfficientNet-Lite0 at 96 px, batches made in this process.
- input_bound, compute_bound: timm's epoch over ours (benchmarks/loops.py), photographs of ImageNet at 224 px; a linear
  classifier on a pooled view with 1 and 2 workers, and mobilenetv3_small_050.
- workers: what two loader workers bring over one, of what two processes bring that share nothing (on the clock).

About three minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.ratios import Figure, told
from benchmarks.trials import data_folder, lines, markdown, put_table
from benchmarks.turns import Gate, cpu_seconds_by_turns
from buttress.memory import keep_freed_memory

NAME = "training"
PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
MARK = "<!-- made by `python -m benchmarks.training --record` -->"
STUDENT, SIZE, BATCH, IMAGES, VIEWS = "timm:test_resnet", 32, 128, 2_560, 2
LIVE_SHARE = 4
TEACHER, TEACHER_SIZE = "tf_efficientnet_lite0", 96
REPEATS = 7
MUSTS: dict[str, tuple[float, float | None]] = {
    "epoch_ratio": (1.03, 1.0),
    "online_ratio": (0.5, None),
    "bare_ratio": (1.03, None),
    "input_bound.1_worker": (1.4, None),
    "input_bound.2_workers": (1.4, None),
    "compute_bound": (1.0, None),
    "workers": (0.9, None),
}
TOLD = {
    "epoch_ratio": "from a store / hard labels",
    "online_ratio": "from a store / live teacher",
    "bare_ratio": "hard labels / bare loop of torch",
    "input_bound.1_worker": "timm's loop / ours, next to no model, 1 worker",
    "input_bound.2_workers": "the same, 2 workers",
    "compute_bound": "timm's loop / ours, mobilenetv3_small_050",
    "workers": "what a second loader worker brings / what a second process brings",
}
PHOTO_BATCH, LOADER_BATCH, PHOTO_REPEATS = 50, 20, 5


def images_and_teacher() -> tuple[Any, Any]:
    """The images, and who has seen them."""
    from buttress.sources import Subset, open_source
    from buttress.teachers import TeacherSpec

    source = Subset(open_source(f"parquet:{data_folder()}/cifar100/train.parquet"), np.arange(IMAGES))
    weights = data_folder() / "weights" / f"{TEACHER}.fp16.safetensors"
    # What it says is of no matter here: the first hundred classes of ImageNet stand for those of the images.
    mapped = {name: [number] for number, name in enumerate(source.classes or ())}
    spec = TeacherSpec(
        uri=f"timm:{TEACHER}@{weights}",
        size=TEACHER_SIZE,
        source_classes=source.classes,
        class_map=mapped,
        threads=1,
    )
    return source, spec


def label(work: Path) -> None:
    """Make the store."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.views.presets import preset

    source, spec = images_and_teacher()
    label_source(source, spec, preset("small"), LabelSettings(views=VIEWS), work / "store")


def data_of(kind: str, work: Path) -> Any:
    """The training data of a kind, all over the same images."""
    from buttress.sources import Subset
    from buttress.store.reader import open_reinforcement
    from buttress.teachers import EnsembleSpec
    from buttress.training.data import TrainingData
    from buttress.views.presets import preset

    source, spec = images_and_teacher()
    if kind == "reinforced":
        return TrainingData(source=source, reinforcement=open_reinforcement(work / "store"))
    if kind == "live teacher":
        some = Subset(source, np.arange(IMAGES // LIVE_SHARE))
        return TrainingData(source=some, policy=preset("small"), teacher=EnsembleSpec.of(spec))
    return TrainingData(source=source, policy=preset("small"))


def bare(epochs: int, work: Path, gate: Gate) -> None:
    """What anybody would write: the same batches, model, optimizer and schedule, nothing else."""
    import torch

    from buttress.loading.loader import BatchLoader
    from buttress.models.load import at_size
    from buttress.models.normalise import normalise
    from buttress.runs.resolve import resolve_model
    from buttress.training.optim import create_optimizer, plain_groups
    from buttress.training.settings import OptimizerSettings, TrainingSettings

    data = data_of("hard", work)
    loaded = at_size(resolve_model(STUDENT, num_classes=len(data.classes)), SIZE)
    model = loaded.module.train().to(memory_format=torch.channels_last)
    loader = BatchLoader(data.batches(SIZE, TrainingSettings()), batch=BATCH, shuffle=True)
    optimizer = create_optimizer(plain_groups(model, 0.05), OptimizerSettings(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * loader.steps_per_epoch)
    for epoch in range(epochs):
        gate()
        loader.set_epoch(epoch)
        for batch in loader:
            assert isinstance(batch.targets, torch.Tensor)
            logits_BC = model(normalise(batch.images, loaded.preprocessing))
            loss = torch.nn.functional.cross_entropy(logits_BC, batch.targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()


def engine(kind: str, epochs: int, work: Path, gate: Gate) -> None:
    """By the library's own loop."""
    from benchmarks.loops import told_of_epochs
    from buttress.training.settings import EngineSettings, TrainingSettings
    from buttress.training.train import train_on_source

    settings = TrainingSettings(epochs=epochs, batch=BATCH, workers=0, engine=EngineSettings(checkpoint_every=epochs))
    with told_of_epochs(gate):
        train_on_source(data_of(kind, work), model=STUDENT, out=work / kind, settings=settings, size=SIZE)


def measure(rounds: int, work: Path) -> list[dict[str, float]]:
    """An epoch of every kind, by turns."""
    epochs = rounds + 2
    trainings: dict[str, Callable[[Gate], None]] = {"bare loop": partial(bare, epochs, work)}
    for kind in ("hard", "reinforced", "live teacher"):
        trainings[kind] = partial(engine, kind, epochs, work)
    found = cpu_seconds_by_turns(trainings, rounds)
    return [spent | {"live teacher": spent["live teacher"] * LIVE_SHARE} for spent in found]


def ratios_of(rounds: list[dict[str, float]]) -> list[Figure]:
    """Of the three ways to train on the same images, and the bare loop."""
    pairs = {
        "epoch_ratio": ("reinforced", "hard"),
        "online_ratio": ("reinforced", "live teacher"),
        "bare_ratio": ("hard", "bare loop"),
    }
    return [_figure(name, tuple(spent[a] / spent[b] for spent in rounds), "lower") for name, (a, b) in pairs.items()]


def _figure(name: str, samples: tuple[float, ...], better: Literal["lower", "higher"]) -> Figure:
    return Figure(f"training.{name}", samples, better, *MUSTS[name])


def against_timm(rounds: int, work: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Epochs from files, ours and timm's by turns, and what a second worker brings; and what was measured."""
    from benchmarks import loops

    folder, epochs = data_folder() / "photos" / "imagenet1k_sample" / "val", rounds + 2
    arms = {
        "input_bound.1_worker": ("pooled_linear", 1),
        "input_bound.2_workers": ("pooled_linear", 2),
        "compute_bound": ("mobilenetv3_small_050", 0),
    }
    trainings: dict[str, Callable[[Gate], None]] = {}
    for name, (model, workers) in arms.items():
        asked = loops.Asked(folder, model, batch=PHOTO_BATCH, workers=workers)
        trainings[f"{name} ours"] = partial(loops.ours, asked, epochs, work / name)
        trainings[f"{name} timm"] = partial(loops.timms, asked, epochs)
    spent = cpu_seconds_by_turns(trainings, rounds)
    pair = loops.Workers(folder, LOADER_BATCH, epochs=4, rounds=20_000)
    shares = tuple(pair.share() for _ in range(rounds))
    pair.end()
    found = {name: tuple(each[f"{name} timm"] / each[f"{name} ours"] for each in spent) for name in arms}
    figures = [_figure(name, samples, "higher") for name, samples in (found | {"workers": shares}).items()]
    return figures, {"photos": spent}


def table() -> str:
    """The ratios of the last recorded run."""
    last = lines(NAME)[-1]
    rows = [
        [
            TOLD.get(row["name"].removeprefix("training."), row["name"]),
            f"{row['ratio']:.3f}",
            "{:.3f} to {:.3f}".format(*row["spread"]),
            f"{'at most' if row['better'] == 'lower' else 'at least'} {row['must']:g}",
        ]
        for row in last.get("figures") or last["rows"]  # as they were called first
    ]
    return markdown(["CPU time of an epoch", "median ratio", "smallest to largest", "wanted"], rows)


def main() -> int:
    """Measure, print, and write the figures where asked; returns 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()  # as commands do; of those beside ours too
    with tempfile.TemporaryDirectory() as folder:
        label(Path(folder))
        rounds = measure(asked.repeats, Path(folder))
        figures, raw = against_timm(min(asked.repeats, PHOTO_REPEATS), Path(folder) / "photos")
    code = told(ratios_of(rounds) + figures, NAME, to=asked.json, recorded=asked.record, raw={"rounds": rounds, **raw})
    if asked.record:
        put_table(PAGE, MARK, table())
    return code


if __name__ == "__main__":
    sys.exit(main())

"""What a step costs: the same images, policy and student with hard labels, a reinforcement and a live teacher; and what
the engine adds to a bare loop of torch on the same batches.

    python -m benchmarks.training             # a table of ratios
    python -m benchmarks.training --record    # and a line of docs/results/training.jsonl, and docs/engine.md's table

Process CPU time of whole trainings of a few steps (batches made in this process, one thread), the arms by turns, the
median of the paired ratios with their smallest and largest. Images: CIFAR-100's (BUTTRESS_DATA). Student: timm's
test_resnet at 32 px; teacher: EfficientNet-Lite0 at 96 px.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.trials import data_folder, lines, markdown, put_table

NAME = "training"
PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
MARK = "<!-- made by `python -m benchmarks.training --record` -->"
STUDENT, SIZE, BATCH, IMAGES, VIEWS = "timm:test_resnet", 32, 128, 2_560, 2
TEACHER, TEACHER_SIZE = "tf_efficientnet_lite0", 96
REPEATS = 7
MUSTS = {"reinforced / hard": 1.03, "reinforced / live teacher": 0.5, "hard / bare loop": 1.03}


def datasets(work: Path) -> dict[str, Any]:
    """The three kinds of training data over the same images."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.sources import Subset, open_source
    from buttress.store.reader import open_reinforcement
    from buttress.teachers import EnsembleSpec, TeacherSpec
    from buttress.training.data import TrainingData
    from buttress.views.presets import preset

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
    policy = preset("small")
    label_source(source, spec, policy, LabelSettings(views=VIEWS), work / "store")
    return {
        "hard": TrainingData(source=source, policy=policy),
        "reinforced": TrainingData(source=source, reinforcement=open_reinforcement(work / "store")),
        "live teacher": TrainingData(source=source, policy=policy, teacher=EnsembleSpec.of(spec)),
    }


def bare_seconds(data: Any, epochs: int) -> float:
    """CPU seconds of what anybody would write: the same batches, model, optimizer and schedule, nothing else."""
    import torch

    from buttress.loading.loader import BatchLoader
    from buttress.models.load import at_size
    from buttress.models.normalise import normalise
    from buttress.runs.resolve import resolve_model
    from buttress.training.optim import create_optimizer, plain_groups
    from buttress.training.settings import OptimizerSettings, TrainingSettings

    used = time.process_time()
    loaded = at_size(resolve_model(STUDENT, num_classes=len(data.classes)), SIZE)
    model = loaded.module.train().to(memory_format=torch.channels_last)
    loader = BatchLoader(data.batches(SIZE, TrainingSettings()), batch=BATCH, shuffle=True)
    optimizer = create_optimizer(plain_groups(model, 0.05), OptimizerSettings(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * loader.steps_per_epoch)
    for epoch in range(epochs):
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
    return time.process_time() - used


def seconds(data: Any, epochs: int, out: Path) -> float:
    """CPU seconds of a training of `epochs` on `data`, all told."""
    from buttress.training.settings import EngineSettings, TrainingSettings
    from buttress.training.train import train_on_source

    settings = TrainingSettings(epochs=epochs, batch=BATCH, workers=0, engine=EngineSettings(checkpoint_every=epochs))
    used = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        train_on_source(data, model=STUDENT, out=out, settings=settings, size=SIZE)
    return time.process_time() - used


def measure(arms: dict[str, Any], repeats: int, work: Path) -> list[dict[str, float]]:
    """An epoch of every arm, by turns: the time of two epochs less that of one, so that start and end cancel."""
    rounds = []
    for number in range(repeats + 1):
        spent = {}
        for name, data in arms.items():
            one, two = (seconds(data, epochs, work / f"{name}-{number}-{epochs}") for epochs in (1, 2))
            spent[name] = two - one
        one, two = (bare_seconds(arms["hard"], epochs) for epochs in (1, 2))
        spent["bare loop"] = two - one
        rounds.append(spent)
    return rounds[1:]  # the first warms up


def table() -> str:
    """The ratios of the last recorded run."""
    rows = [
        [row["name"], f"{row['ratio']:.3f}", "{:.3f} to {:.3f}".format(*row["spread"]), f"at most {row['must']:g}"]
        for row in lines(NAME)[-1]["rows"]
    ]
    return markdown(["CPU time of an epoch", "median ratio", "smallest to largest", "wanted"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rounds = measure(datasets(Path(folder)), asked.repeats, Path(folder))
    rows = []
    for name, must in MUSTS.items():
        ours, theirs = name.split(" / ")
        ratios = [spent[ours] / spent[theirs] for spent in rounds]
        ratio = statistics.median(ratios)
        rows.append(
            {
                "name": name,
                "ratio": round(ratio, 4),
                "better": "lower",
                "must": must,
                "stretch": None,
                "spread": [round(min(ratios), 4), round(max(ratios), 4)],
                "holds": ratio <= must,
            }
        )
        print(f"{name:26} {ratio:.3f}  ({min(ratios):.3f} to {max(ratios):.3f}; must: at most {must})")
    if asked.record:
        record(NAME, {"rows": rows, "rounds": rounds}, "benchmarks.training")
        put_table(PAGE, MARK, table())
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

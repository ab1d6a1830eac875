"""Does `buttress inspect` find wrong labels and duplicates that were planted into CIFAR-100, or into another source?

    python -m benchmarks.health teacher --labels planted --work DIR     # fine-tune, then label: DIR/store
    python -m benchmarks.health measure --reinforcement DIR/store --taught "these labels" --record
    python -m benchmarks.health table       # from docs/results/health.jsonl into docs/health.md

A tenth of the labels is moved to another class, drawn evenly, and a hundredth of the images is copied under another id,
every other copy under another class. `measure` knows which; what it measures gets the images, those labels and what the
teacher said. What a list of label errors is worth depends on what the teacher was trained on, so `teacher` has three
ways: `clean` (the right labels of the images that it then judges), `planted` (the very labels that it then judges, the
wrong ones among them, as a user has them), `others` (other images, a tenth of them wrongly labelled as well). `measure`
takes any reinforcement with the source that it was made from, and names by --taught what its teacher was trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.trials import data_folder, lines, markdown, put_table
from buttress.metrics.health import Health, examine
from buttress.sources import Relabelled, Sample, Source, Subset, id_hashes, open_source
from buttress.sources.splits import split, with_wrong_labels
from buttress.store.reader import Reinforcement, open_reinforcement

WRONG, COPIED, SEED = 0.1, 0.01, 20261121
WANTED = 0.8  # of the planted errors found, and of what is flagged planted
PAGE = Path(__file__).parents[1] / "docs" / "health.md"
MARK = "<!-- made by `python -m benchmarks.health table` -->"
HEAD = ("images", "teacher trained on", "its top-1", "any class", "estimated", "like classes", "confident learning")
MODEL = "tf_efficientnet_lite0"
SIZE, BATCH, LR, VIEWS = 64, 64, 1e-3, 8


def cifar100() -> str:
    return f"parquet:{data_folder()}/cifar100/train.parquet?label=fine_label"


def planted(source: Source) -> Relabelled:
    """The same images with a tenth of the labels wrong."""
    return with_wrong_labels(source, WRONG, SEED)


class WithCopies:
    """A source and, behind it, copies of some of its images under other ids; every other copy under another class."""

    def __init__(self, source: Source, chosen: np.ndarray) -> None:
        assert source.classes is not None
        self.source, self.chosen = source, chosen
        self.uri, self.classes = source.uri, source.classes
        self.ids = (*source.ids, *(f"copy of {source.ids[index]}" for index in chosen.tolist()))
        labels = np.asarray(source.labels)
        copied = (labels[chosen] + np.arange(len(chosen)) % 2) % len(source.classes)
        self.labels = np.concatenate([labels, copied]).astype(np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        place = index if index < len(self.source) else int(self.chosen[index - len(self.source)])
        return replace(self.source[place], id=self.ids[index], label=int(self.labels[index]))


def make_teacher(labels: str, rows: int, epochs: int, work: Path) -> None:
    """Fine-tune an ImageNet model on CIFAR-100 and let it look at `rows` images; the store goes to `work`/store."""
    from buttress.labelling.label import label_source
    from buttress.labelling.settings import LabelSettings
    from buttress.teachers.teacher import TeacherSpec
    from buttress.training.data import TrainingData
    from buttress.training.settings import EngineSettings, TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import preset

    judged, others = split(open_source(cifar100()), (rows, rows))
    kinds: dict[str, Source] = {"clean": judged, "planted": planted(judged), "others": planted(others)}
    settings = TrainingSettings(
        epochs=epochs, batch=BATCH, lr=LR, workers=0, engine=EngineSettings(checkpoint_every=epochs)
    )
    weights = data_folder() / "weights" / f"{MODEL}.fp16.safetensors"
    data = TrainingData(source=kinds[labels], policy=preset("small"))
    if not (work / "run" / "model.safetensors").exists():
        train_on_source(data, model=f"timm:{MODEL}@{weights}", out=work / "run", settings=settings, size=SIZE)
    assert judged.classes is not None
    spec = TeacherSpec(uri=f"run:{work / 'run'}", source_classes=tuple(judged.classes))
    label_source(judged, spec, preset("small"), LabelSettings(views=VIEWS, workers=1), work / "store")


def measure(reinforcement: Path, uri: str) -> dict[str, Any]:
    """Plant, inspect, and compare with what was planted."""
    store, source = open_reinforcement(reinforcement), open_source(uri)
    judged = Subset(source, np.flatnonzero(store.rows_of(id_hashes(source.ids)) >= 0))
    noisy = planted(judged)
    copied = np.random.default_rng(SEED).choice(len(judged), round(COPIED * len(judged)), replace=False)
    start = time.process_time()
    health = examine(WithCopies(noisy, copied), store)
    seconds = time.process_time() - start
    wrong = noisy.labels != judged.labels
    assert health.noise is not None
    score = health.noise.wrong_N
    return {
        "data": uri.replace(str(data_folder()), "data"),
        "teacher": str(store.card.teachers[0]["uri"]),
        "images": len(judged),
        "views": store.views,
        "seconds": seconds,
        "teacher_top1": float((health.said.ids_NK[:, 0] == judged.labels).mean()),
        "labels": _figures(score, score > 0.5, wrong),
        "confident_learning": _figures(1 - health.said.given_N, confident_learning(health), wrong),
        "share": {"planted": float(wrong.mean()), "estimated": health.noise.share},
        "temperature": health.noise.temperature,
        "duplicates": _duplicates(health, copied),
        "alike": _alike(judged, store),
        "unplanted": _of_right_labels(judged, store),
    }


def _alike(judged: Source, store: Reinforcement) -> dict[str, Any]:
    """The same tenth of the labels moved to the one class that the teacher mixes up most with the right one."""
    said = examine(judged, store).said
    confusion_CC = np.zeros((len(store.classes), len(store.classes)))
    np.add.at(confusion_CC, (np.asarray(judged.labels)[:, None], said.ids_NK), said.values_NK)
    np.fill_diagonal(confusion_CC, 0)
    wrong = planted(judged).labels != judged.labels
    labels = np.where(wrong, confusion_CC.argmax(axis=1)[judged.labels], judged.labels)
    health = examine(Relabelled(judged, labels), store)
    assert health.noise is not None
    score = health.noise.wrong_N
    return {**_figures(score, score > 0.5, wrong), "estimated": health.noise.share}


def _figures(score: np.ndarray, flagged: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """Precision and recall of what is flagged, and of the best cut that somebody who knew the truth could make."""
    from sklearn.metrics import average_precision_score

    order = np.argsort(-score, kind="stable")
    hits = wrong[order].cumsum()
    recall, precision = hits / wrong.sum(), hits / np.arange(1, len(order) + 1)
    found = int((flagged & wrong).sum())
    return {
        "flagged": int(flagged.sum()),
        "precision": found / max(int(flagged.sum()), 1),
        "recall": found / int(wrong.sum()),
        "average_precision": float(average_precision_score(wrong, score)),
        "recall_at_precision_0.8": float(recall[precision >= WANTED].max(initial=0)),
    }


def confident_learning(health: Health) -> np.ndarray:
    """What confident learning flags (Northcutt et al. 2021): the likeliest of the classes whose probability reaches the
    mean that it has on the samples labelled so is not the label.
    """
    said, labels = health.said, np.asarray(health.source.labels)[health.places]
    counts = np.bincount(labels, minlength=len(health.store.classes))
    means_C = np.bincount(labels, said.given_N, len(counts)) / np.maximum(counts, 1)
    reached_NK = np.where(said.values_NK >= means_C[said.ids_NK], said.values_NK, -1)
    best = np.take_along_axis(said.ids_NK, reached_NK.argmax(axis=1)[:, None], axis=1)[:, 0]
    flagged: np.ndarray = (reached_NK.max(axis=1) >= 0) & (best != labels)
    return flagged


def _duplicates(health: Health, copied: np.ndarray) -> dict[str, Any]:
    groups = [set(group["ids"]) for group in health.duplicates()]
    ids = health.source.ids
    found = sum(any({ids[index], f"copy of {ids[index]}"} <= group for group in groups) for index in copied.tolist())
    return {"planted": len(copied), "found": found, "groups": len(groups)}


def _of_right_labels(judged: Source, store: Reinforcement) -> dict[str, Any]:
    """What is flagged where nothing was planted: the source's own labels, of which some may be wrong."""
    health = examine(judged, store)
    assert health.noise is not None
    return {"flagged": int((health.noise.wrong_N > 0.5).sum()), "share": health.noise.share}


def table() -> str:
    """The last measurement of every teacher, as Markdown."""
    last = {(line["data"], line["taught"], line["images"]): line for line in lines("health")}
    rows = [
        [
            f"{line['data'].partition('/')[2].partition('/train')[0]}, {line['images']:,}",
            line["taught"],
            _percent(line["teacher_top1"]),
            _both(line["labels"]),
            _percent(line["share"]["estimated"]),
            _both(line["alike"]),
            _both(line["confident_learning"]),
        ]
        for line in last.values()
    ]
    return markdown(HEAD, rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _both(figures: dict[str, Any]) -> str:
    return f"{_percent(figures['precision'])}, {_percent(figures['recall'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    actions = parser.add_subparsers(dest="action", required=True)
    teacher = actions.add_parser("teacher")
    teacher.add_argument("--labels", choices=["clean", "planted", "others"], required=True)
    teacher.add_argument("--rows", type=int, default=10_000)
    teacher.add_argument("--epochs", type=int, default=8)
    teacher.add_argument("--work", type=Path, required=True)
    measuring = actions.add_parser("measure")
    measuring.add_argument("--reinforcement", type=Path, required=True)
    measuring.add_argument("--source", default=cifar100(), help="what it was made from (default: CIFAR-100)")
    measuring.add_argument("--taught", required=True, help="what the teacher was trained on")
    measuring.add_argument("--record", action="store_true", help="append to docs/results/health.jsonl")
    actions.add_parser("table")
    arguments = parser.parse_args()
    if arguments.action == "table":
        put_table(PAGE, MARK, table())
        return
    if arguments.action == "teacher":
        make_teacher(arguments.labels, arguments.rows, arguments.epochs, arguments.work)
        return
    line = {"taught": arguments.taught, **measure(arguments.reinforcement, arguments.source)}
    print(json.dumps(line, indent=1))
    if arguments.record:
        record("health", line, "benchmarks.health")


if __name__ == "__main__":
    main()

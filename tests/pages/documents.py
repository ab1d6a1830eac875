"""Small evaluations and runs as `buttress evaluate` and `buttress train` leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from buttress.metrics.corruptions import CORRUPTIONS
from buttress.models.preprocessing import Preprocessing
from buttress.runs.run import EVALUATION, METRICS, RECIPE, WEIGHTS, Run


def figure(value: float | None, half: float | None = None, count: int = 500) -> dict[str, Any]:
    """A figure, with an interval to both sides where it has one."""
    ends = (None, None) if half is None or value is None else (value - half, value + half)
    return {"value": value, "count": count, "low": ends[0], "high": ends[1]}


def evaluation(model: str, top1: float = 0.7, *, uri: str = "folder:gone", **changed: Any) -> dict[str, Any]:
    """A full evaluation whose figures follow from top1; `changed` replaces figures."""
    return {
        "top1": figure(top1, 0.02),
        "top5": figure(0.95, 0.01),
        "nll": figure(2 - top1, 0.05),
        "ece": figure(0.1 * top1, 0.01),
        "corruption_error": figure(1 - top1 / 2, 0.05, 20),
        "shift_camera": figure(0.12, 0.03, 20),
        **changed,
        "details": {
            "reliability": [
                {"low": 0.0, "high": 0.5, "images": 0, "confidence": None, "top1": None},
                {"low": 0.5, "high": 1.0, "images": 500, "confidence": 0.8, "top1": top1},
            ],
            "risk_coverage": {"coverage": [0.5, 1.0], "risk": [0.1, 1 - top1]},
            "confused": [{"truth": "cat", "predicted": "dog", "images": 2, "ids": ["a.png", "b.png"]}],
            "corruptions": {
                "clean": figure(top1, 0.1, 20),
                **{name: [figure(top1 * (1 - 0.1 * level), 0.1, 20) for level in range(5)] for name in CORRUPTIONS},
            },
            "scales": [{"side": 16, "top1": figure(0.5, 0.1, 20)}, {"side": 32, "top1": figure(None, None, 0)}],
        },
        "settings": {
            "model": model,
            "size": 32,
            "classes_scored": 2,
            "suite": "full",
            "corruption_samples": 20,
            "seed": 0,
        },
        "versions": {"buttress": "0.1.0", "torch": "2.6.0"},
        "data": {"uri": uri, "fingerprint": "f" * 64, "count": 500},
    }


def costs(parameters: int, macs: int, latency: float) -> dict[str, Any]:
    """What a model costs, as figures."""
    return {
        "parameters": figure(parameters),
        "bytes": figure(4 * parameters),
        "macs": figure(macs),
        "latency": figure(latency, latency / 10),
    }


def level(name: str, top1: float, *, bytes: int | None, macs: int | None) -> dict[str, Any]:
    """An entry of `details.levels` of a million parameters."""
    figures = {"top1": figure(top1, 0.02), "nll": figure(2 - top1, 0.05), "ece": figure(0.1 * top1, 0.01)}
    return {"level": name, "figures": figures, "parameters": 10**6, "bytes": bytes, "macs": macs}


def elastic(model: str, levels: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    """An evaluation of an elastic run, at the first of its levels."""
    first = levels[0]
    document = evaluation(model, first["figures"]["top1"]["value"], **changed)
    document["settings"]["level"] = first["level"]
    document["details"]["levels"] = levels
    return document


def write(path: Path, document: Any) -> str:
    """Write a document; its path as a user would give it."""
    path.write_text(json.dumps(document))
    return str(path)


def make_run(folder: Path, *, finished: bool = True, document: Any = None) -> Path:
    """A run of three epochs, without real weights."""
    run = Run(
        path=folder,
        model_name="test_vit",
        model_kwargs={},
        classes=("cat", "dog"),
        preprocessing=Preprocessing(
            size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_pct=1.0
        ),
        settings={"model": "timm:test_vit", "epochs": 3, "seed": 7},
        versions={"torch": "2.6.0"},
        data={"uri": "folder:photos/train", "fingerprint": "e" * 64, "count": 99},
    )
    run.create()
    (folder / RECIPE).write_text("model: timm:test_vit\nval: folder:photos/val\n")
    for epoch in (1, 2, 3):
        val = {"top1": figure(0.2 * epoch, 0.05), "nll": figure(2.0 / epoch)}
        run.append_metrics({"epoch": epoch, "step": epoch, "loss": 1.0 / epoch, "lr": 0.1, "seconds": 1.0, "val": val})
    assert (folder / METRICS).is_file()
    if finished:
        (folder / WEIGHTS).touch()
    if document is not None:
        write(folder / EVALUATION, document)
    return folder

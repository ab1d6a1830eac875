"""`buttress evaluate`: how good is a model?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "balanced_accuracy": "balanced accuracy",
    "nll": "NLL, nat",
    "brier": "Brier score",
    "ece": "ECE",
    "ece_adaptive": "ECE, bins of equal counts",
    "ece_classwise": "ECE, class-wise",
    "temperature": "best temperature",
    "nll_scaled": "NLL after temperature",
    "ece_scaled": "ECE after temperature",
    "aurc": "area under risk-coverage",
}


def evaluate(
    model: str,
    *,
    data: str,
    class_map: Path | None = None,
    batch: int = 64,
    workers: int = 2,
    max_bad: float = 0.001,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Score a run or a model on labelled images: accuracy, calibration, and what it may abstain from.

    Fractions are of 1; an interval of 95 % stands beside what has one.

    Args:
        model: a run folder, run:DIR, or a timm: model with weights.
        data: labelled images, e.g. folder:photos/val.
        class_map: YAML file, class of the data -> class of the model, where names do not say it.
        batch: images per forward pass.
        workers: processes that prepare batches; 0 = none.
        max_bad: largest share, 0..1, of images that may fail to decode.
        json: print the JSON document in place of the table.
        out: JSON file for the figures and their details; the default prints figures only.
    """
    from buttress.files import json_bytes, require_writable, write_json
    from buttress.metrics.clean import clean_details, clean_figures
    from buttress.metrics.score import score
    from buttress.runs.resolve import resolve_model
    from buttress.sources import fingerprint, open_source
    from buttress.versions import library_versions

    if out is not None:
        require_writable(out)
    source = open_source(data)
    loaded = resolve_model(model, pretrained=True if model.startswith("timm:") and "@" not in model else None)
    evaluation = score(loaded, source, class_map=class_map, workers=workers, batch=batch, max_bad=max_bad)
    document = {
        **clean_figures(evaluation),
        "details": clean_details(evaluation),
        "settings": {
            "model": model,
            "class_map": str(class_map) if class_map else None,
            "size": loaded.preprocessing.size,
            "classes_scored": len(evaluation.classes),
        },
        "versions": library_versions(),
        "data": {"uri": source.uri, "fingerprint": fingerprint(source), "count": len(evaluation.ids)},
    }
    if json:
        print(json_bytes(document).decode().rstrip("\n"))
    else:
        _print_figures(document)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, document)


def _print_figures(document: Mapping[str, Any]) -> None:
    print(f"{document['data']['count']:,} images, {document['settings']['classes_scored']:,} classes")
    width = max(map(len, NAMES.values()))
    for key, name in NAMES.items():
        print(f"{name:{width}}  {_text(document[key])}")


def _text(figure: Mapping[str, float | int | None]) -> str:
    if figure["value"] is None:
        return "not measured"
    interval = "" if figure["low"] is None else f"  [{figure['low']:.4f}, {figure['high']:.4f}]"
    return f"{figure['value']:.4f}{interval}"

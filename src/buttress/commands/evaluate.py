"""`buttress evaluate`: how good is a model?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

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
    "corruption_error": "error when corrupted",
    "shift_camera": "changed by a camera's pixel",
    "shift_cyclic": "changed by a cyclic pixel",
    "mce": "mCE, baseline = 1",
    "relative_mce": "relative mCE, baseline = 1",
}


def evaluate(
    model: str,
    *,
    data: str,
    class_map: Path | None = None,
    suite: Literal["quick", "full"] = "quick",
    corruption_samples: int = 100,
    baseline: Path | None = None,
    consistent_crops: bool = False,
    seed: int = 0,
    batch: int = 64,
    workers: int = 2,
    max_bad: float = 0.001,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Score a run or a model on labelled images: accuracy, calibration, what it may abstain from, robustness.

    Fractions are of 1; an interval of 95 % stands beside what has one.

    Args:
        model: a run folder, run:DIR, or a timm: model with weights.
        data: labelled images, e.g. folder:photos/val.
        class_map: YAML file, class of the data -> class of the model, where names do not say it.
        suite: quick is one pass over the images; full also corrupts some of them in 19 ways and 5 severities, and moves
            them by a pixel.
        corruption_samples: how many images are corrupted and moved, as many of each class as can be.
        baseline: JSON of another model's full evaluation; corruption errors are also told in units of its own.
        consistent_crops: look at the crop whose middle fits a fixed pattern best, and not at the middle one, so that an
            image that has moved by a pixel mostly gives the same crop; corruptions are of the middle one.
        seed: of the images that are corrupted, and of how.
        batch: images per forward pass.
        workers: processes that prepare batches; 0 = none.
        max_bad: largest share, 0..1, of images that may fail to decode.
        json: print the JSON document in place of the table.
        out: JSON file for the figures and their details; the default prints figures only.
    """
    from buttress.files import json_bytes, require_writable, write_json
    from buttress.metrics.clean import clean_details, clean_figures
    from buttress.metrics.robustness import errors_against, sampled, score_corrupted
    from buttress.metrics.score import score
    from buttress.metrics.shift import score_shifted
    from buttress.runs.resolve import resolve_model
    from buttress.sources import fingerprint, open_source
    from buttress.versions import library_versions

    if out is not None:
        require_writable(out)
    against = None if baseline is None else _corruptions_of(baseline, suite)
    source = open_source(data)
    loaded = resolve_model(model, pretrained=True if model.startswith("timm:") and "@" not in model else None)
    evaluation = score(
        loaded,
        source,
        class_map=class_map,
        workers=workers,
        batch=batch,
        max_bad=max_bad,
        consistent=consistent_crops,
    )
    figures, details = clean_figures(evaluation), clean_details(evaluation)
    settings = {
        "model": model,
        "class_map": str(class_map) if class_map else None,
        "size": loaded.preprocessing.size,
        "classes_scored": len(evaluation.classes),
        "suite": suite,
        "consistent_crops": consistent_crops,
    }
    if suite == "full":
        found = score_corrupted(
            loaded,
            source,
            samples=corruption_samples,
            seed=seed,
            class_map=class_map,
            batch=batch,
            workers=workers,
            max_bad=max_bad,
        )
        figures |= found.figures()
        details["corruptions"] = found.details()
        settings |= {"corruption_samples": corruption_samples, "seed": seed}
        figures |= score_shifted(
            loaded,
            sampled(source, corruption_samples, seed),
            consistent=consistent_crops,
            class_map=class_map,
            batch=batch,
            workers=workers,
            max_bad=max_bad,
        ).figures()
        if against is not None:
            figures |= errors_against(found, against)
            settings["baseline"] = str(baseline)
    document = {
        **figures,
        "details": details,
        "settings": settings,
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


def _corruptions_of(baseline: Path, suite: str) -> Mapping[str, Any]:
    """How the baseline did on corrupted images.

    Raises: SettingsError, where its file is not of a full evaluation, or this one is not full.
    """
    from buttress.errors import SettingsError
    from buttress.files import read_json
    from buttress.metrics.robustness import are_details

    if suite != "full":
        raise SettingsError("--baseline: corruption errors are of --suite full")
    document = read_json(baseline, SettingsError)
    found = document.get("details", {}).get("corruptions") if isinstance(document, dict) else None
    if not are_details(found):
        raise SettingsError(
            f"{baseline}: tells of no corruptions; make it by buttress evaluate --suite full --out FILE"
        )
    return found


def _print_figures(document: Mapping[str, Any]) -> None:
    print(f"{document['data']['count']:,} images, {document['settings']['classes_scored']:,} classes")
    width = max(map(len, NAMES.values()))
    for key, name in NAMES.items():
        if key in document:
            print(f"{name:{width}}  {_text(document[key])}")
    if "corruptions" in document["details"]:
        _print_corruptions(document["details"]["corruptions"])


def _print_corruptions(found: Mapping[str, Any]) -> None:
    """Top-1 in percent by corruption and severity."""
    clean = found["clean"]
    print(f"\ntop-1 % of {clean['count']:,} images, clean {100 * clean['value']:.1f}, corrupted, severity 1 to 5")
    for name, figures in found.items():
        if name != "clean":
            print(f"{name.replace('_', ' '):18}" + "".join(f"{100 * each['value']:7.1f}" for each in figures))


def _text(figure: Mapping[str, float | int | None]) -> str:
    if figure["value"] is None:
        return "not measured"
    interval = "" if figure["low"] is None else f"  [{figure['low']:.4f}, {figure['high']:.4f}]"
    return f"{figure['value']:.4f}{interval}"

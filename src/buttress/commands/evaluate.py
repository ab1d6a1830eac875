"""`buttress evaluate`: how good is a model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

SAMPLES = 100  # images that are corrupted and moved
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
    corruption_samples: int | None = None,
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
        suite: quick is one pass over the images; full also corrupts some of them in 19 ways and 5 severities, moves
            them by a pixel, and shows them at half to twice the model's size.
        corruption_samples: how many images that is done with, as many of each class as can be; the default is 100.
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
    from buttress.metrics.robustness import decodable, errors_against, sampled, score_corrupted
    from buttress.metrics.scale import score_scales
    from buttress.metrics.score import score
    from buttress.metrics.shift import score_shifted
    from buttress.runs.resolve import resolve_model
    from buttress.sources import fingerprint, open_source
    from buttress.versions import library_versions

    if out is not None:
        require_writable(out)
    asked = {"--corruption-samples": corruption_samples, "--baseline": baseline, "--seed": seed or None}
    samples = _samples(suite, asked)
    against = None if baseline is None else _full_document(baseline)
    source = open_source(data)
    images = {"fingerprint": fingerprint(source), "corruption_samples": samples, "seed": seed}
    if against is not None:
        _require_same_images(baseline, against, images)
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
        part = sampled(decodable(source, evaluation.ids), samples, seed)
        found = score_corrupted(
            loaded,
            part,
            seed=seed,
            class_map=class_map,
            batch=batch,
            workers=workers,
            max_bad=max_bad,
        )
        figures |= found.figures()
        details["corruptions"] = found.details()
        settings |= {"corruption_samples": samples, "seed": seed}
        figures |= score_shifted(
            loaded,
            part,
            consistent=consistent_crops,
            class_map=class_map,
            batch=batch,
            workers=workers,
            max_bad=max_bad,
        ).figures()
        details["scales"] = score_scales(
            loaded, part, class_map=class_map, batch=batch, workers=workers, max_bad=max_bad
        )
        if against is not None:
            figures |= errors_against(found, against["details"]["corruptions"])
            settings["baseline"] = against["settings"]["model"]
    document = {
        **figures,
        "details": details,
        "settings": settings,
        "versions": library_versions(),
        "data": {"uri": source.uri, "fingerprint": images["fingerprint"], "count": len(evaluation.ids)},
    }
    if json:
        print(json_bytes(document).decode().rstrip("\n"))
    else:
        _print_figures(document)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, document)


def _samples(suite: str, asked: Mapping[str, Any]) -> int:
    """How many images are corrupted.

    Raises: SettingsError, where one of the settings is out of its range, or is of the full suite and this is not.
    """
    from buttress.errors import SettingsError

    count, seed = asked["--corruption-samples"], asked["--seed"]
    if suite != "full" and (given := [flag for flag, value in asked.items() if value is not None]):
        raise SettingsError(f"{', '.join(given)}: of --suite full")
    if count is not None and count < 1:
        raise SettingsError(f"--corruption-samples {count}: at least 1 image")
    if seed is not None and not 0 <= seed < 2**63:
        raise SettingsError(f"--seed {seed}: must be 0 or more, and below 2^63")
    return SAMPLES if count is None else int(count)


def _full_document(baseline: Path) -> Mapping[str, Any]:
    """The baseline's figures.

    Raises: SettingsError, where its file is not of a full evaluation.
    """
    from buttress.errors import SettingsError
    from buttress.files import read_json
    from buttress.metrics.robustness import are_details

    document = read_json(baseline, SettingsError)
    details = document.get("details") if isinstance(document, dict) else None
    if not isinstance(details, dict) or not are_details(details.get("corruptions")):
        raise SettingsError(
            f"{baseline}: tells of no corruptions; make it by buttress evaluate --suite full --out FILE"
        )
    return dict(document)


def _require_same_images(baseline: Path | None, document: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises: SettingsError, where the baseline was scored on other images, or on others of them."""
    from buttress.errors import SettingsError

    told = {**document.get("settings", {}), **document.get("data", {})}
    if other := [name for name, value in wanted.items() if told.get(name) != value]:
        raise SettingsError(
            f"{baseline}: is of other images ({', '.join(other)} differ); score the baseline on the same"
        )


def _print_figures(document: Mapping[str, Any]) -> None:
    print(f"{document['data']['count']:,} images, {document['settings']['classes_scored']:,} classes")
    width = max(map(len, NAMES.values()))
    for key, name in NAMES.items():
        if key in document:
            print(f"{name:{width}}  {_text(document[key])}")
    if "corruptions" in document["details"]:
        _print_corruptions(document["details"]["corruptions"])
        _print_scales(document["details"]["scales"])


def _print_corruptions(found: Mapping[str, Any]) -> None:
    """Top-1 in percent by corruption and severity."""
    clean = found["clean"]
    print(f"\ntop-1 % of {clean['count']:,} images, clean {100 * clean['value']:.1f}, corrupted, severity 1 to 5")
    for name, figures in found.items():
        if name != "clean":
            print(f"{name.replace('_', ' '):18}" + "".join(f"{100 * each['value']:7.1f}" for each in figures))


def _print_scales(found: Sequence[Mapping[str, Any]]) -> None:
    """Top-1 in percent by side."""
    print("\ntop-1 % at other sides in pixels, the model's own crop")
    for each in found:
        value = each["top1"]["value"]
        print(f"{each['side']:18,}" + (f"{100 * value:7.1f}" if value is not None else "  not measured"))


def _text(figure: Mapping[str, float | int | None]) -> str:
    if figure["value"] is None:
        return "undefined here"
    interval = "" if figure["low"] is None else f"  [{figure['low']:.4f}, {figure['high']:.4f}]"
    return f"{figure['value']:.4f}{interval}"

"""`buttress evaluate`: how good is a model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from buttress.metrics.suite import FullSuite

SAMPLES = 100  # images that are corrupted and moved
NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "real_top1": "top-1, ReaL labels",
    "multilabel_top1": "top-1, any right label",
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
COSTS = {
    "parameters": ("parameters", 1),
    "bytes": ("weights, bytes", 1),
    "macs": ("multiply-accumulates, M", 1e-6),
    "peak_memory": ("peak of activations, MB", 1e-6),
    "latency": ("latency, ms, of one image", 1000),
    "throughput": ("throughput, images/s", 1),
}


def evaluate(
    model: str,
    *,
    data: str,
    class_map: Path | None = None,
    label_sets: str | None = None,
    slices: Path | None = None,
    suite: Literal["quick", "full"] = "quick",
    corruption_samples: int | None = None,
    baseline: Path | None = None,
    compiled: bool = False,
    consistent_crops: bool = False,
    seed: int = 0,
    batch: int = 64,
    workers: int = 2,
    max_bad: float = 0.001,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Score a run or a model on labelled images: accuracy, calibration, what it may abstain from, robustness.

    Fractions are of 1; an interval of 95 % stands beside what has one. An elastic run is scored at its default level,
    and by one pass more at each of its others.

    Args:
        model: a run folder, run:DIR, run:DIR@LEVEL (of an elastic run, e.g. keep=0.25), or a timm: model with weights.
        data: labelled images, e.g. folder:photos/val.
        class_map: YAML file, class of the data -> class of the model, where names do not say it.
        label_sets: real, for ImageNet's validation images, or a JSON file, image -> its right classes.
        slices: JSON file, name -> images that are also told of by themselves.
        suite: quick is one pass over the images; full also corrupts some of them in 19 ways and 5 severities, moves
            them by a pixel, and shows them at half to twice the model's size.
        corruption_samples: how many images that is done with, as many of each class as can be; the default is 100.
        baseline: JSON of another model's full evaluation; corruption errors are also told in units of its own.
        compiled: of the full suite: also time what torch.compile makes of the model, which takes minutes.
        consistent_crops: look at the crop whose middle fits a fixed pattern best, and not at the middle one, so that an
            image that has moved by a pixel mostly gives the same crop; corruptions are of the middle one.
        seed: of the images that are corrupted, and of how.
        batch: images per forward pass.
        workers: processes that prepare batches; 0 = none.
        max_bad: largest share, 0..1, of images that may fail to decode.
        json: print the JSON document in place of the table.
        out: JSON file for the figures and their details; the default, of a run, is evaluation.json in its folder.
    """
    from buttress.files import json_bytes, require_writable
    from buttress.metrics.label_sets import read_label_sets
    from buttress.metrics.levels import score_levels
    from buttress.metrics.score import Scoring, scored_classes
    from buttress.metrics.slices import read_slices
    from buttress.metrics.suite import Truths, classes_digest, judge
    from buttress.runs.resolve import levels_of, resolve_model, resolve_run, weights_file
    from buttress.sources import fingerprint, open_source
    from buttress.versions import library_versions

    if out is not None:
        require_writable(out)
    against = None if baseline is None else _full_document(baseline)
    asked = {"--corruption-samples": corruption_samples, "--baseline": baseline, "--seed": seed or None}
    full = _full_suite(suite, {**asked, "--compiled": compiled or None}, against, weights_file(model))
    truths = Truths(
        sets=None if label_sets is None else read_label_sets(label_sets),
        slices=() if slices is None else read_slices(slices),
    )
    source = open_source(data)
    images = {"uri": source.uri, "fingerprint": fingerprint(source)}
    weights = True if model.startswith("timm:") and "@" not in model else None
    loaded = resolve_model(model, pretrained=weights, measured=True)
    levels = levels_of(model)
    how = Scoring(class_map=class_map, batch=batch, workers=workers, max_bad=max_bad, consistent=consistent_crops)
    if against is not None and full is not None:
        chosen = scored_classes(loaded, source, class_map).classes or ()
        same = {"fingerprint": images["fingerprint"], "classes": classes_digest(chosen)}
        _require_same_images(baseline, against, {**same, "corruption_samples": full.samples, "seed": full.seed})
    found = judge(loaded, source, how, full=full, truths=truths)
    details = dict(found.details)
    if levels and not _names_level(model):
        scored = score_levels(resolve_run(model), source, how, default=loaded, figures=found.figures)
        details["levels"] = [each.details() for each in scored]
    settings = {
        "model": model,
        "level": str(levels[0]) if levels else None,
        "class_map": str(class_map) if class_map else None,
        "size": loaded.preprocessing.size,
        "classes_scored": len(found.evaluation.classes),
        "label_sets": label_sets,
        "slices": None if slices is None else str(slices),
        "suite": suite,
        "consistent_crops": consistent_crops,
        "batch": batch,
        "max_bad": max_bad,
        "weights_sha256": loaded.weights_sha256,
    }
    if full is not None:
        settings |= {"corruption_samples": full.samples, "seed": full.seed, "compiled": full.compiled}
    if against is not None:
        settings |= {"baseline": against["settings"]["model"], "baseline_file": str(baseline)}
    if truths.sets is not None:
        images["label_sets"] = truths.sets.digest()
    document = {
        **found.figures,
        "details": details,
        "settings": settings,
        "versions": library_versions(),
        "data": {**images, **found.identity(), "count": len(found.evaluation.ids)},
    }
    _keep(document, out, model)  # before anything is printed, for a pipe may close
    if json:
        print(json_bytes(document).decode().rstrip("\n"))
    else:
        _print_figures(document)


def _full_suite(
    suite: str, asked: Mapping[str, Any], against: Mapping[str, Any] | None, weights: Path | None
) -> FullSuite | None:
    """The settings of the full suite; None for the quick one.

    Raises: SettingsError, where one of them is out of its range, or is given and this is the quick suite.
    """
    from buttress.errors import SettingsError
    from buttress.metrics.suite import FullSuite

    if suite != "full":
        if given := [flag for flag, value in asked.items() if value is not None]:
            raise SettingsError(f"{', '.join(given)}: of --suite full")
        return None
    samples, seed = asked["--corruption-samples"], asked["--seed"] or 0
    if samples is not None and samples < 1:
        raise SettingsError(f"--corruption-samples {samples}: at least 1 image")
    if not 0 <= seed < 2**63:
        raise SettingsError(f"--seed {seed}: must be 0 or more, and below 2^63")
    return FullSuite(
        samples=SAMPLES if samples is None else samples,
        seed=seed,
        baseline=None if against is None else against["details"]["corruptions"],
        weights_file=weights,
        compiled=bool(asked["--compiled"]),
    )


def _full_document(baseline: Path) -> Mapping[str, Any]:
    """The baseline's figures.

    Raises: SettingsError, where its file is not of a full evaluation.
    """
    from buttress.errors import SettingsError
    from buttress.files import read_json
    from buttress.metrics.robustness import are_details

    document = read_json(baseline, SettingsError)
    found = document if isinstance(document, dict) else {}
    parts = {name: found.get(name) for name in ("details", "settings", "data")}
    if not all(isinstance(part, dict) for part in parts.values()) or "model" not in found["settings"]:
        raise SettingsError(f"{baseline}: no evaluation; make it by buttress evaluate --suite full --out FILE")
    if not are_details(found["details"].get("corruptions")):
        raise SettingsError(
            f"{baseline}: tells of no corruptions; make it by buttress evaluate --suite full --out FILE"
        )
    return found


def _require_same_images(baseline: Path | None, document: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises: SettingsError, where the baseline was scored on other images, others of them, or over other classes."""
    from buttress.errors import SettingsError

    told = {**document["settings"], **document["data"]}
    if other := [name for name, value in wanted.items() if told.get(name) != value]:
        raise SettingsError(
            f"{baseline}: is of other images ({', '.join(other)} differ); score the baseline on the same"
        )


def _keep(document: Mapping[str, Any], out: Path | None, model: str) -> None:
    """Write the document to `out`; without, that of a run into its folder."""
    from buttress.files import write_json
    from buttress.terminal import note

    path = out or _place_in_run(model)
    if path is None:
        return
    if out is None and document["settings"]["suite"] != "full" and _is_full(path, document):
        note(f"{path}: holds a full evaluation and stays as it is; --out FILE keeps this quick one")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    if out is None:
        note(f"{path}: written; buttress report {path.parent} shows it")


def _place_in_run(model: str) -> Path | None:
    """Where an evaluation of a run is kept; None where the model is no run, its folder cannot be written to, or it is
    of one level, while the folder keeps all.
    """
    import os

    from buttress.models.uri import parse_model_uri
    from buttress.runs.run import EVALUATION
    from buttress.terminal import note

    parsed = parse_model_uri(model)
    if parsed.scheme != "run" or parsed.path is None:
        return None
    if parsed.level is not None:
        note(f"{model}: is one level of the run, whose folder keeps all of them; --out FILE keeps the figures")
        return None
    if not os.access(parsed.path, os.W_OK):
        note(f"{parsed.path}: cannot be written to; --out FILE keeps the figures")
        return None
    return parsed.path / EVALUATION


def _names_level(model: str) -> bool:
    from buttress.models.uri import parse_model_uri

    return parse_model_uri(model).level is not None


def _is_full(path: Path, document: Mapping[str, Any]) -> bool:
    """Whether a full evaluation of the same weights stands there."""
    from buttress.errors import SettingsError
    from buttress.files import read_json

    try:
        there = read_json(path, SettingsError)
    except SettingsError:
        return False
    settings = there.get("settings") if isinstance(there, dict) else None
    wanted = {"suite": "full", "weights_sha256": document["settings"]["weights_sha256"]}
    return isinstance(settings, dict) and {name: settings.get(name) for name in wanted} == wanted


def _print_figures(document: Mapping[str, Any]) -> None:
    from buttress.terminal import print_table

    title = f"{document['data']['count']:,} images, {document['settings']['classes_scored']:,} classes"
    rows = [[name, *_cells(document[key])] for key, name in NAMES.items() if key in document]
    print_table(title, ["", "value", "95 % interval"], rows)
    if "levels" in document["details"]:
        _print_levels(document["details"]["levels"])
    if "slices" in document["details"]:
        _print_slices(document["details"]["slices"])
    if "corruptions" in document["details"]:
        _print_corruptions(document["details"]["corruptions"])
        _print_scales(document["details"]["scales"])
    if "cost" in document["details"]:
        _print_cost(document)


def _cells(figure: Mapping[str, float | int | None]) -> list[str]:
    if figure["value"] is None:
        return ["undefined here", ""]
    return [f"{figure['value']:.4f}", "" if figure["low"] is None else f"{figure['low']:.4f} to {figure['high']:.4f}"]


def _print_slices(found: Sequence[Mapping[str, Any]]) -> None:
    from buttress.terminal import print_table

    rows = [[each["name"], f"{each['images']:,}", *_cells(each.get("multilabel_top1", each["top1"]))] for each in found]
    print_table("slices", ["", "images", "top-1", "95 % interval"], rows)


def _print_levels(found: Sequence[Mapping[str, Any]]) -> None:
    """A row for each level, the default first."""
    from buttress.terminal import print_table

    rows = [
        [
            each["level"],
            *_cells(each["figures"]["top1"]),
            *(_cells(each["figures"][key])[0] for key in ("nll", "ece")),
            f"{each['bytes'] * 1e-6:,.2f}",
            "" if each["macs"] is None else f"{each['macs'] * 1e-6:,.1f}",
        ]
        for each in found
    ]
    columns = ["", "top-1", "95 % interval", "NLL, nat", "ECE", "weights, MB", "multiply-accumulates, M"]
    print_table("levels, the default first", columns, rows)


def _print_corruptions(found: Mapping[str, Any]) -> None:
    """Top-1 in percent by corruption and severity."""
    from buttress.terminal import print_table

    clean = found["clean"]
    title = f"top-1 % of {clean['count']:,} images, clean {100 * clean['value']:.1f}, corrupted by severity"
    rows = [
        [name.replace("_", " "), *(f"{100 * each['value']:.1f}" for each in figures)]
        for name, figures in found.items()
        if name != "clean"
    ]
    print_table(title, ["", "1", "2", "3", "4", "5"], rows)


def _print_scales(found: Sequence[Mapping[str, Any]]) -> None:
    """Top-1 in percent by side."""
    from buttress.terminal import print_table

    values = [each["top1"]["value"] for each in found]
    cells = ["not measured" if value is None else f"{100 * value:.1f}" for value in values]
    sides = [f"{each['side']:,}" for each in found]
    print_table("top-1 % at other sides, the model's own crop", ["pixels", *sides], [["top-1 %", *cells]])


def _print_cost(document: Mapping[str, Any]) -> None:
    """What it costs, and how long a batch takes in each way."""
    from buttress.terminal import print_table

    rows = [[name, *_amounts(document[key], unit)] for key, (name, unit) in COSTS.items()]
    first, *_ = timings = document["details"]["cost"]
    print_table(f"cost, {first['device']}, {first['threads']} threads", ["", "value", "5 to 95 % of runs"], rows)
    cells = [
        [each["variant"], f"{each['batch']:,}", *_amounts(each["seconds"], 1000)]
        for each in timings
        if each["not_measured"] is None
    ]
    print_table("milliseconds a batch", ["", "images", "median", "5 to 95 % of runs"], cells)
    for text in dict.fromkeys(f"{each['variant']}: {each['not_measured']}" for each in timings if each["not_measured"]):
        print(text)


def _amounts(figure: Mapping[str, float | int | None], unit: float) -> list[str]:
    """A value and its interval, in units of 1 / `unit`."""
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if value is None:
        return ["", ""]

    def text(amount: float) -> str:
        return f"{amount * unit:,.0f}" if isinstance(value, int) and unit == 1 else f"{amount * unit:,.1f}"

    return [text(value), "" if low is None or high is None else f"{text(low)} to {text(high)}"]

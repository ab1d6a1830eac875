"""`buttress evaluate`: how good is a model?"""

from __future__ import annotations

from pathlib import Path


def evaluate(
    model: str,
    *,
    data: str,
    class_map: Path | None = None,
    batch: int = 64,
    workers: int = 2,
    max_bad: float = 0.001,
    out: Path | None = None,
) -> None:
    """Score a run or a model on labelled images: top-1, top-5, NLL, ECE.

    Args:
        model: a run folder, run:DIR, or a timm: model with weights.
        data: labelled images, e.g. folder:photos/val.
        class_map: YAML file, class of the data -> class of the model, where names do not say it.
        batch: images per forward pass.
        workers: processes that prepare batches; 0 = none.
        max_bad: largest share, 0..1, of images that may fail to decode.
        out: JSON file for the figures; the default prints them only.
    """
    from buttress.files import require_writable, write_json
    from buttress.metrics.score import score
    from buttress.runs.resolve import resolve_model
    from buttress.sources import fingerprint, open_source
    from buttress.versions import library_versions

    if out is not None:
        require_writable(out)
    source = open_source(data)
    loaded = resolve_model(model, pretrained=True if model.startswith("timm:") and "@" not in model else None)
    evaluation = score(loaded, source, class_map=class_map, workers=workers, batch=batch, max_bad=max_bad)
    for name, figure in evaluation.figures.items():
        print(f"{name:5} {_text(figure)}")
    if out is not None:
        settings = {
            "model": model,
            "class_map": str(class_map) if class_map else None,
            "size": loaded.preprocessing.size,
            "classes_scored": evaluation.logits.shape[1],
        }
        document = {
            **evaluation.figures,
            "settings": settings,
            "versions": library_versions(),
            "data": {"uri": source.uri, "fingerprint": fingerprint(source), "count": len(evaluation.ids)},
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, document)


def _text(figure: dict[str, float | int | None]) -> str:
    if figure["value"] is None:
        return "not measured"
    text = f"{figure['value']:.4f}  ({figure['count']:,} images"
    if figure["low"] is not None:
        text += f", 95 % interval {figure['low']:.4f} to {figure['high']:.4f}"
    return text + ")"

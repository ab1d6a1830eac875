"""`buttress predict`: what does a model say of every image?"""

from __future__ import annotations

from pathlib import Path


def predict(
    model: str,
    *,
    source: str,
    out: Path,
    top_k: int = 5,
    class_map: Path | None = None,
    batch: int = 64,
    workers: int = 2,
    max_bad: float = 0.001,
) -> None:
    """Write a model's likeliest classes for every image to a table, .csv or .parquet.

    One row per image, in the source's order: id, label, class, probability, class_2, probability_2 and so on. An image
    that cannot be decoded has an empty prediction.

    Args:
        model: a run folder, run:DIR, run:DIR@LEVEL (of an elastic run), or a timm: model with weights.
        source: the images, e.g. folder:photos/new. Labels are not needed.
        out: the table, FILE.csv or FILE.parquet.
        top_k: classes per image, the likeliest first.
        class_map: YAML file, class of the table -> class of the model, where names do not say it.
        batch: images per forward pass.
        workers: processes that prepare batches; 0 = none.
        max_bad: largest share, 0..1, of images that may fail to decode.
    """
    from buttress.files import require_writable
    from buttress.metrics.predictions_file import check_ready, write_predictions

    check_ready(out)
    require_writable(out)
    from buttress.metrics.predictions import predict_source
    from buttress.runs.resolve import resolve_model
    from buttress.sources import open_source
    from buttress.terminal import note

    images = open_source(source)
    loaded = resolve_model(model, pretrained=True if model.startswith("timm:") and "@" not in model else None)
    found = predict_source(
        loaded, images, top_k=top_k, class_map=class_map, workers=workers, batch=batch, max_bad=max_bad
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(out, found)
    empty = f", {found.undecodable:,} of them empty (image not decodable)" if found.undecodable else ""
    note(f"{out}: {len(found.ids):,} rows{empty}")

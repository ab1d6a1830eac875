"""Views worth looking at, with what the teacher said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.sources import Source, id_hash, id_hashes
from buttress.store.partners import Partners
from buttress.store.reader import Reinforcement

TOP = 3


def gallery(
    source: Source, truths: NDArray[np.int32], store: Reinforcement, *, size: int, count: int
) -> tuple[list[NDArray[np.uint8]], list[dict[str, Any]]]:
    """Of some images the view that the teacher is least sure of; up to half of them with a wrong label.

    Views that are mixed with an image that is not here are not shown.

    Args:
        source: labelled images.
        truths: the right labels, [N]; those of the source where no others are known.
        store: what the teacher said of them.
        size: side of the views, pixels.
        count: images to show.

    Returns: the views, each uint8 [size, size, 3]; and of each, as JSON, `id`, `view`, `label`, `truth`, `planted`
        (whether those two differ) and `top`, the three likeliest classes with their probabilities.
    """
    rows = store.rows_of(id_hashes(source.ids))
    partners = Partners(source, store, rows)
    usable = np.flatnonzero((rows >= 0) & ~np.isin(rows, store.absent_rows) & (source.labels >= 0))
    wrong = source.labels[usable] != truths[usable]
    chosen = [*usable[wrong][: count // 2], *usable[~wrong]][:count]
    images, shown = [], []
    for index in map(int, chosen):
        sample, row = source[index], int(rows[index])
        sample_hash = id_hash(sample.id)
        drawable = [view for view in range(store.views) if partners.drawable(sample_hash, view)]
        if not drawable:
            continue
        view = min(drawable, key=lambda view: store.target(row, view)[0][0])
        images.append(partners.renderer.views(sample.data, sample_hash, [view], size, partners.picture)[0])
        shown.append({"id": sample.id, "view": view, **_said(store, row, view), **_labels(source, truths, index)})
    return images, shown


def _said(store: Reinforcement, row: int, view: int) -> dict[str, Any]:
    values, ids, _ = store.target(row, view)
    named = [{"name": store.classes[i], "probability": value} for value, i in zip(values, ids, strict=True)]
    return {"top": named[:TOP]}


def _labels(source: Source, truths: NDArray[np.int32], index: int) -> dict[str, Any]:
    assert source.classes is not None
    label, truth = int(source.labels[index]), int(truths[index])
    return {"label": source.classes[label], "truth": source.classes[truth], "planted": label != truth}

"""A reinforcement at a glance: its size, how sure the teacher is, and how its answers spread over the classes.

Shapes: N judged samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.metrics.health import Health
from buttress.metrics.label_errors import CUT
from buttress.store.reader import Reinforcement

BINS = 20


def overview(health: Health) -> dict[str, Any]:
    """The figures, as JSON.

    Returns: `store` (`samples`, `views`, `k`, `classes`, `bytes` on disk, `bytes_per_view` of labels); `confidence`
        and `entropy` of the mean answers (`mean`, and `bins` of `low`, `high`, `count`; 0..1 and nat); `agreement`:
        the share of `labelled` samples whose label is the teacher's likeliest class, none where there is no label;
        and `classes`: per class how many samples are `labelled` so, `taught` (the teacher's likeliest class) and
        `flagged`, the largest first.
    """
    said = health.said
    labelled, agreement = len(health.labelled), None
    if labelled:
        labels = np.asarray(health.source.labels)[health.places[health.labelled]]
        agreement = float((said.ids_NK[health.labelled, 0] == labels).mean())
    return {
        "store": _store(health.store),
        "confidence": _spread(said.values_NK[:, 0], 1.0),
        "entropy": _spread(said.entropy_N, max(float(said.entropy_N.max()), 0.1)),
        "labelled": labelled,
        "agreement": agreement,
        "classes": _classes(health),
    }


def _store(store: Reinforcement) -> dict[str, int]:
    return {
        "samples": store.rows,
        "views": store.views,
        "k": store.k,
        "classes": len(store.classes),
        "bytes": sum(path.stat().st_size for path in store.path.iterdir() if path.is_file()),
        "bytes_per_view": store.codec.stride + store.card.has_truth,
    }


def _spread(values_N: NDArray[np.float64], highest: float) -> dict[str, Any]:
    """The mean of values in 0..highest, and how many fall into each of `BINS` equal parts of that."""
    counts, edges = np.histogram(values_N, BINS, (0, highest))
    bins = [
        {"low": low, "high": high, "count": count}
        for (low, high), count in zip(pairwise(edges.tolist()), counts.tolist(), strict=True)
    ]
    return {"mean": float(values_N.mean()), "bins": bins}


def _classes(health: Health) -> list[dict[str, Any]]:
    labelled = Counter(_labels(health, np.ones(len(health.places), np.bool_)))
    flagged = Counter(_labels(health, health.wrong_N > CUT))
    taught = Counter(health.store.classes[number] for number in health.said.ids_NK[:, 0].tolist())
    return [
        {"name": name, "labelled": labelled[name], "taught": taught[name], "flagged": flagged[name]}
        for name in sorted({*labelled, *taught}, key=lambda name: (-labelled[name], -taught[name], name))
    ]


def _labels(health: Health, asked_N: NDArray[np.bool_]) -> Iterator[str]:
    """The labels of those judged samples that have one."""
    return filter(None, (health.label(place) for place in health.places[asked_N].tolist()))

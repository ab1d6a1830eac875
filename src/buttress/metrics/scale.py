"""Accuracy of a model at other input sizes than it was trained at."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from buttress.errors import ModelError
from buttress.metrics.intervals import figure
from buttress.metrics.score import AS_IT_IS, Scoring, score
from buttress.models.load import LoadedModel, at_size
from buttress.sources import Source
from buttress.terminal import note

FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
GRID = 16  # pixels: sides are multiples of it where the model's own is, as patches want


def sides_of(size: int) -> list[int]:
    """Sides at half to twice `size`, ascending, each once."""
    step = GRID if size % GRID == 0 else 1
    return sorted({max(step, round(size * factor / step) * step) for factor in FACTORS})


def score_scales(loaded: LoadedModel, source: Source, how: Scoring = AS_IT_IS) -> list[dict[str, Any]]:
    """`{"side": pixels, "top1": figure}` at half to twice the model's size; no value where it cannot run at a side.

    Position embeddings of a fixed size are resampled from the model's own each time. The crop and the filter stay.

    Args:
        loaded, source, how: as for `score`; the crop is the middle one. The model is left as it is.

    Raises: SourceError, ModelError: as `score`.
    """
    told: list[dict[str, Any]] = []
    for side in sides_of(loaded.preprocessing.size):
        try:
            resized = at_size(replace(loaded, module=deepcopy(loaded.module)), side)
        except ModelError as failure:
            note(str(failure))
            told.append({"side": side, "top1": figure(None, 0)})
            continue
        found = score(resized, source, replace(how, consistent=False))
        told.append({"side": side, "top1": found.figures["top1"]})
    return told

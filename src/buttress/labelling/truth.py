"""What the teacher thinks of each sample's own label, to be stored beside its records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.labelling.growth import Growth
from buttress.sources import Source
from buttress.store.part import Part, read_part_info
from buttress.store.reader import Reinforcement
from buttress.store.truth import distance_from_log8, encode_log8


def truth_codes(probabilities_BC: NDArray[np.float32], labels_B: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Codes `[B]` of the probability of each view's label; 0 where the label is -1."""
    truth_B = np.take_along_axis(probabilities_BC, np.maximum(labels_B, 0)[:, None].astype(np.int64), axis=1)[:, 0]
    return np.where(labels_B >= 0, encode_log8(truth_B), 0).astype(np.uint8)


def labels_of_rows(source: Source, growth: Growth, out: Path) -> NDArray[np.int32]:
    """Hard label of every row `[rows]`: the stored one of rows that are there, the source's of new ones.

    So what is added tells of the same class as what is there, also where the source's labels have changed since.
    """
    labels_N = np.asarray(source.labels, np.int32)[growth.order]
    labels_N[growth.order < 0] = -1  # away, and nothing is made of them
    for entry in growth.parts:
        if entry.views[0] == 0:
            part = Part(out, entry.name, read_part_info(out, entry.name)[0])
            labels_N[slice(*entry.rows)] = part.column("hard_labels")
    return labels_N


def truth_distances(
    fresh_BC: NDArray[np.float32], reinforcement: Reinforcement, rows_B: NDArray[np.int64], views_B: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How far fresh probabilities of the hard labels lie from the stored ones `[B]`, beyond what a byte can tell.

    0 where a row has no hard label.
    """
    labels_B = reinforcement.hard_labels[rows_B]
    fresh_B = np.take_along_axis(fresh_BC, np.maximum(labels_B, 0)[:, None].astype(np.int64), axis=1)[:, 0]
    stored_B = np.nan_to_num(reinforcement.truth(rows_B, views_B))
    return np.where(labels_B >= 0, distance_from_log8(fresh_B, stored_B), 0.0)

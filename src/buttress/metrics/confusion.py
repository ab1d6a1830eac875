"""Which classes are taken for which. Shapes: N samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ConfusedPair(NamedTuple):
    """Images of class `truth` that were taken for class `predicted`: their number, and places among the N."""

    truth: int
    predicted: int
    images: int
    places: tuple[int, ...]


def confused_pairs(predicted_N: Tensor, labels_N: Tensor, classes: int, most: int = 20) -> list[ConfusedPair]:
    """The pairs off the diagonal of the confusion matrix, the most frequent first; of equals the lower classes first.

    Args:
        predicted_N, labels_N: int64 [N], 0..classes - 1.
        classes: C; the C x C matrix itself is not made.
        most: how many pairs at the most.
    """
    wrong = torch.nonzero(predicted_N != labels_N)[:, 0]
    keys, counts = torch.unique(labels_N[wrong] * classes + predicted_N[wrong], return_counts=True)
    chosen = torch.argsort(counts, descending=True, stable=True)[:most]  # keys ascend, so equals stay in their order
    pairs = []
    for key, count in zip(keys[chosen].tolist(), counts[chosen].tolist(), strict=True):
        truth, predicted = divmod(key, classes)
        places = torch.nonzero((labels_N == truth) & (predicted_N == predicted))[:, 0]
        pairs.append(ConfusedPair(truth, predicted, count, tuple(places.tolist())))
    return pairs

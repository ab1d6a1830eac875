"""The Brier score. Shapes: N samples, C classes."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.metrics.accuracy import row_chunks


def brier_scores(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """sum_c (p_c - [c = label])^2 of each sample, float64 [N], 0..2 (Brier 1950, Monthly Weather Review 78:1)."""
    scores = []
    for logits, labels in row_chunks(logits_NC, labels_N):
        probabilities = logits.double().softmax(dim=1)
        own = probabilities.gather(1, labels[:, None])[:, 0]
        scores.append(probabilities.square().sum(dim=1) - own.square() + (1 - own).square())
    return torch.cat(scores)

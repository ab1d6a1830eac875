"""Calibration error of every class's probability. Shapes: N samples, C classes, Q bins."""

from __future__ import annotations

import torch
from torch import Tensor

from buttress.metrics.accuracy import row_chunks

BINS = 15


def classwise_calibration_error(logits_NC: Tensor, labels_N: Tensor, bins: int = BINS) -> float:
    """Class-wise ECE, 0..1: over classes, the mean of the ECE of that class's probability against all others.

    15 equal-width bins a class; Kull et al. 2019 (arXiv 1910.12656, section 2). With many classes nearly all
    probabilities are near 0, and so is this.
    """
    classes = logits_NC.shape[1]
    gaps_CQ = torch.zeros(classes * bins, dtype=torch.float64)
    first_of_class_C = torch.arange(classes) * bins
    for logits, labels in row_chunks(logits_NC, labels_N):
        probabilities = logits.double().softmax(dim=1)
        bin_ = (probabilities * bins).long().clamp_(max=bins - 1)
        probabilities[torch.arange(len(labels)), labels] -= 1
        gaps_CQ.index_add_(0, (bin_ + first_of_class_C).flatten(), probabilities.flatten())
    return float(gaps_CQ.abs().sum()) / len(labels_N) / classes

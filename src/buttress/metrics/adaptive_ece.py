"""Calibration error over bins of equal counts. Shapes: N samples."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 15


def adaptive_calibration_error(confidence_N: Tensor, right_N: Tensor, bins: int = BINS) -> float:
    """Adaptive ECE, 0..1: mean |accuracy - confidence| over bins that hold the same number of samples.

    Nguyen and O'Connor 2015 (arXiv 1508.05154, section 4); "AdaECE" of Mukhoti et al. 2020. Bins differ by at most one
    sample, the first ones being the larger; samples of one confidence that lie in two bins are spread evenly, so that
    their order does not matter.

    Args:
        confidence_N: probability of the predicted class, 0..1.
        right_N: bool, whether the prediction is right.
        bins: at most this many; with fewer samples one each.
    """
    confidence, order = confidence_N.double().sort()
    right = tie_means(confidence, right_N.double()[order])
    gaps = (right - confidence).tensor_split(min(bins, len(confidence)))
    return float(sum(gap.sum().abs() for gap in gaps)) / len(confidence)


def tie_means(sorted_N: Tensor, values_N: Tensor) -> Tensor:
    """`values_N` with those of equal `sorted_N` replaced by their mean, float64 [N]."""
    _, group_N, counts = torch.unique_consecutive(sorted_N, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, group_N, values_N.double())
    means_N: Tensor = (sums / counts)[group_N]
    return means_N

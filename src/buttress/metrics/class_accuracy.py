"""Accuracy class by class. Shapes: N samples, C classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class ClassHits(NamedTuple):
    """Of each class how many of its images were predicted right, and how many there are: both int64 [C]."""

    right_C: Tensor
    count_C: Tensor


def class_hits(predicted_N: Tensor, labels_N: Tensor, classes: int) -> ClassHits:
    """Count predictions, int64 [N], class by class."""
    right_N = predicted_N == labels_N
    return ClassHits(torch.bincount(labels_N[right_N], minlength=classes), torch.bincount(labels_N, minlength=classes))


def balanced_accuracy(labels_N: NDArray[np.int64], right_N: NDArray[np.bool_], times_N: NDArray[np.int64]) -> float:
    """Mean over the classes that have images of the share of them that is right, 0..1 (Brodersen et al. 2010).

    Args:
        labels_N, right_N: class of each image, and whether it was predicted.
        times_N: how often each counts.
    """
    images_C, right_C = np.bincount(labels_N, times_N), np.bincount(labels_N, times_N * right_N)
    return float((right_C[images_C > 0] / images_C[images_C > 0]).mean())

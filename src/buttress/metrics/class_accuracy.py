"""Accuracy class by class. Shapes: N samples, C classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ClassHits(NamedTuple):
    """Of each class how many of its images were predicted right, and how many there are: both int64 [C]."""

    right_C: Tensor
    count_C: Tensor


def class_hits(predicted_N: Tensor, labels_N: Tensor, classes: int) -> ClassHits:
    """Count predictions, int64 [N], class by class."""
    right_N = predicted_N == labels_N
    return ClassHits(torch.bincount(labels_N[right_N], minlength=classes), torch.bincount(labels_N, minlength=classes))


def balanced_accuracy(hits: ClassHits) -> float:
    """Mean over the classes that have images of the share of them that is right, 0..1 (Brodersen et al. 2010)."""
    there_C = hits.count_C > 0
    return float((hits.right_C[there_C].double() / hits.count_C[there_C]).mean())

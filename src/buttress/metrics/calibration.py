"""How far a model's confidence can be trusted. Shapes: N samples, C classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from buttress.metrics.accuracy import CHUNK, row_chunks

BINS = 15
_BELOW_ONE = 1 - 2.0**-24  # torchmetrics puts a confidence of exactly 1 into a 16th bin; this keeps it in the last


def negative_log_likelihood(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Mean -log softmax(logits)[label], in nat, computed in float64."""
    sums = (
        functional.cross_entropy(logits.double(), labels, reduction="sum").item()
        for logits, labels in row_chunks(logits_NC, labels_N)
    )
    return math.fsum(sums) / len(labels_N)


def expected_calibration_error(logits_NC: Tensor, labels_N: Tensor) -> float:
    """ECE, 0..1: mean |accuracy - confidence| over 15 equal-width bins of the top-1 confidence (Guo et al. 2017).

    A bin holds its lower edge; the last holds both.
    """
    from torchmetrics.functional.classification import binary_calibration_error  # seconds to import

    confidence_N, predicted_N = top1(logits_NC)
    # The binary form on "is the top-1 right" is the same sum as the multiclass one, without its [N, C] probabilities.
    right_N = predicted_N.eq(labels_N).long()
    return float(binary_calibration_error(confidence_N, right_N, n_bins=BINS, norm="l1", validate_args=False))


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bar of a reliability diagram: confidences in low..high, how many, their mean and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability_bins(logits_NC: Tensor, labels_N: Tensor) -> tuple[ReliabilityBin, ...]:
    """The 15 bins behind the ECE; an empty bin has neither confidence nor accuracy."""
    confidence_N, predicted_N = top1(logits_NC)
    right_N = predicted_N.eq(labels_N)
    edges = torch.linspace(0, 1, BINS + 1)
    bin_N = torch.bucketize(confidence_N, edges, right=True) - 1
    return tuple(
        _bin(edges[i].item(), edges[i + 1].item(), confidence_N[bin_N == i], right_N[bin_N == i]) for i in range(BINS)
    )


def _bin(low: float, high: float, confidence_M: Tensor, right_M: Tensor) -> ReliabilityBin:
    if not len(confidence_M):
        return ReliabilityBin(low, high, 0, None, None)
    return ReliabilityBin(
        low, high, len(confidence_M), confidence_M.double().mean().item(), right_M.double().mean().item()
    )


def top1(logits_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence, float32 [N], and predicted class, int64 [N]; the softmax is in float64, a chunk at a time."""
    rows = [logits_NC[start : start + CHUNK] for start in range(0, len(logits_NC), CHUNK)]
    confidences = [each.double().softmax(dim=1).amax(dim=1).float().clamp_(max=_BELOW_ONE) for each in rows]
    return torch.cat(confidences), logits_NC.argmax(dim=1)

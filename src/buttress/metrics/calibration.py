"""How far a model's confidence can be trusted. Shapes: N samples, C classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15
_BELOW_ONE = 1 - 2.0**-24  # torchmetrics puts a confidence of exactly 1 into a 16th bin; this keeps it in the last


def negative_log_likelihood(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Mean -log softmax(logits)[label], in nat, computed in float64."""
    return float(functional.cross_entropy(logits_NC.double(), labels_N))


def expected_calibration_error(logits_NC: Tensor, labels_N: Tensor) -> float:
    """ECE, 0..1: mean |accuracy - confidence| over 15 equal-width bins of the top-1 confidence (Guo et al. 2017).

    A bin holds its lower edge; the last holds both.
    """
    probabilities_NC = _probabilities(logits_NC)
    error = multiclass_calibration_error(
        probabilities_NC, labels_N, num_classes=logits_NC.shape[1], n_bins=BINS, norm="l1", validate_args=False
    )
    return float(error)


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
    confidence_N, predicted_N = _probabilities(logits_NC).max(dim=1)
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


def _probabilities(logits_NC: Tensor) -> Tensor:
    return logits_NC.double().softmax(dim=1).float().clamp_(max=_BELOW_ONE)

"""What a model may abstain from. Shapes: N samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from buttress.metrics.adaptive_ece import tie_means


class RiskCoverage(NamedTuple):
    """Share of wrong answers when the model answers only what it is surest of.

    Args:
        coverage: shares of the images that are answered, ascending to 1.
        risk: the share of wrong ones among them, 0..1, for each.
        area: mean risk over all coverages 1/N..1: AURC, 0..1, lower is better.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


def risk_coverage(confidence_N: Tensor, right_N: Tensor, points: int = 20) -> RiskCoverage:
    """The risk-coverage curve and its area (Geifman and El-Yaniv 2017, arXiv 1705.08500; AURC: arXiv 1805.08206).

    Samples of one confidence count as in a random order of theirs.

    Args:
        confidence_N: probability of the predicted class, 0..1.
        right_N: bool, whether the prediction is right.
        points: of the curve at the most, at equal steps of coverage; the area is of all N.
    """
    confidence, order = confidence_N.double().sort(descending=True)
    wrong = tie_means(confidence, (~right_N).double()[order])
    risk_N = wrong.cumsum(0) / torch.arange(1, len(wrong) + 1)
    answered = sorted({max(1, round(len(wrong) * point / points)) for point in range(1, points + 1)})
    coverage = tuple(count / len(wrong) for count in answered)
    return RiskCoverage(coverage, tuple(float(risk_N[count - 1]) for count in answered), float(risk_N.mean()))

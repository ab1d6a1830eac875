"""The one number that calibrates best. Shapes: N samples, C classes."""

from __future__ import annotations

import math

from torch import Tensor

from buttress.metrics.accuracy import row_chunks

LOWEST, HIGHEST = 0.01, 100.0


def best_temperature(logits_NC: Tensor, labels_N: Tensor) -> float:
    """T of the least NLL of softmax(logits / T) (Guo et al. 2017, arXiv 1706.04599, section 4.2), 0.01..100.

    The NLL is convex in 1/T: Newton's steps, halved where they leave the bracket. Where every sample is right, or each
    is wrong, there is no best one and an end of the range is returned.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST  # of 1/T
    if _slope(logits_NC, labels_N, high)[0] <= 0:
        return LOWEST
    if _slope(logits_NC, labels_N, low)[0] >= 0:
        return HIGHEST
    inverse = 1.0
    for _ in range(100):
        slope, curvature = _slope(logits_NC, labels_N, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else math.inf
        following = step if low < step < high else math.sqrt(low * high)
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following
    return 1 / inverse


def _slope(logits_NC: Tensor, labels_N: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative by 1/T of the mean NLL: that of the expected logit, and its variance."""
    first = second = 0.0
    for logits, labels in row_chunks(logits_NC, labels_N):
        exact = logits.double()
        exact = exact - exact.max(dim=1, keepdim=True).values
        probabilities = (exact * inverse).softmax(dim=1)
        mean = (probabilities * exact).sum(dim=1)
        first += float((mean - exact.gather(1, labels[:, None])[:, 0]).sum())
        second += float(((probabilities * exact.square()).sum(dim=1) - mean.square()).sum())
    return first / len(labels_N), second / len(labels_N)


def cross_fitted(logits_NC: Tensor, labels_N: Tensor, first_N: Tensor) -> Tensor:
    """Logits over a temperature that was fitted on other images, float32 [N, C]: each half takes that of the other.

    Args:
        first_N: bool, which samples are of the first half; both halves hold some.
    """
    scaled = logits_NC.clone()
    for half in (first_N, ~first_N):
        scaled[half] /= best_temperature(logits_NC[~half], labels_N[~half])
    return scaled

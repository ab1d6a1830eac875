"""The one number that calibrates best. Shapes: N samples, C classes."""

from __future__ import annotations

import math

from torch import Tensor

from buttress.metrics.accuracy import row_chunks

LOWEST, HIGHEST = 0.01, 100.0


def best_temperature(logits_NC: Tensor, labels_N: Tensor) -> float | None:
    """T of the least NLL of softmax(logits / T) (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The NLL is convex in 1/T: Newton's steps, halved where they leave the bracket. None where no temperature from 0.01
    to 100 is best: where every sample is right it falls as T does, where the logits say nothing it does not.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST  # of 1/T
    if _slope(logits_NC, labels_N, high)[0] <= 0 or _slope(logits_NC, labels_N, low)[0] >= 0:
        return None
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


def cross_fitted(logits_NC: Tensor, labels_N: Tensor, first_N: Tensor) -> Tensor | None:
    """Logits over a temperature that was fitted on other images, float32 [N, C]: each half takes that of the other.

    None where a half is empty or has no best temperature.

    Args:
        first_N: bool, which samples are of the first half.
    """
    scaled = logits_NC.clone()
    for half in (first_N, ~first_N):
        if half.all() or (best := best_temperature(logits_NC[~half], labels_N[~half])) is None:
            return None
        scaled[half] /= best
    return scaled

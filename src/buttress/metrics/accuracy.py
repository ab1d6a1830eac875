"""Top-k accuracy. Shapes: N samples, C classes."""

from __future__ import annotations

from torch import Tensor


def top_k_hits(logits_NC: Tensor, labels_N: Tensor, k: int) -> int:
    """How many labels are among the k highest logits; of equal logits the lower class comes first, as in argmax."""
    own_N1 = logits_NC.gather(1, labels_N[:, None])
    below_NC = labels_N.new_ones(logits_NC.shape).cumsum(1) <= labels_N[:, None]
    ahead_NC = (logits_NC > own_N1) | ((logits_NC == own_N1) & below_NC)
    return int((ahead_NC.sum(1) < k).sum())

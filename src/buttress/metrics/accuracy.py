"""Top-k accuracy. Shapes: N samples, C classes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 4096  # rows at a time: what is made on the way stays small beside the logits of a large evaluation


def top_k_hits(logits_NC: Tensor, labels_N: Tensor, k: int) -> int:
    """How many labels are among the k highest logits; of equal logits the lower class comes first, as in argmax."""
    return sum(int((_ranks(logits, labels) < k).sum()) for logits, labels in row_chunks(logits_NC, labels_N))


def row_chunks(logits_NC: Tensor, labels_N: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The same rows, at most `CHUNK` at a time."""
    for start in range(0, len(logits_NC), CHUNK):
        yield logits_NC[start : start + CHUNK], labels_N[start : start + CHUNK]


def _ranks(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """int64 [N], how many classes come before the label's."""
    own_N1 = logits_NC.gather(1, labels_N[:, None])
    lower_NC = torch.arange(logits_NC.shape[1], device=logits_NC.device) < labels_N[:, None]
    return ((logits_NC > own_N1) | ((logits_NC == own_N1) & lower_NC)).sum(1)

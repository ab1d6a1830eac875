"""An evaluation of a model that gives the answers it is told."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from buttress.metrics.evaluate import Evaluation, Predicted


def answered(classes: tuple[str, ...], said: Mapping[str, str], truth: Mapping[str, str] | None = None) -> Evaluation:
    """Sample id -> the class it is said to be; the truth is the same, but where it is given."""
    labels = {**said, **(truth or {})}
    logits_NC = torch.zeros(len(said), len(classes))
    for row, name in enumerate(said.values()):
        logits_NC[row, classes.index(name)] = 1
    own_N = torch.tensor([classes.index(labels[sample_id]) for sample_id in said])
    return Evaluation.of(Predicted(logits_NC, own_N, tuple(said)), classes)

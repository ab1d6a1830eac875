"""Class by class, pairs that are confused: hand-made cases and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from buttress.metrics.class_accuracy import balanced_accuracy, class_hits
from buttress.metrics.confusion import confused_pairs


def answers(seed: int, count: int = 60, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, classes, (count,), generator=generator) for _ in range(2))  # type: ignore[return-value]


def test_a_hand_made_confusion():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    predicted = torch.tensor([0, 1, 1, 1, 0, 2, 0, 0, 1])
    pairs = confused_pairs(predicted, labels, 4)
    assert [pair[:3] for pair in pairs] == [(0, 1, 2), (2, 0, 2), (1, 0, 1), (2, 1, 1)]
    assert pairs[1].places == (6, 7)
    assert [pair[:2] for pair in confused_pairs(predicted, labels, 4, most=1)] == [(0, 1)]
    hits = class_hits(predicted, labels, 4)
    assert hits.right_C.tolist() == [1, 1, 1, 0]
    assert hits.count_C.tolist() == [3, 2, 4, 0]
    told = balanced_accuracy(labels.numpy(), (predicted == labels).numpy(), np.ones(9, np.int64))
    assert told == pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3)  # the empty class does not count


def test_nothing_is_confused():
    labels = torch.tensor([0, 1, 2])
    assert confused_pairs(labels, labels, 3) == []


@given(st.integers(0, 2**32 - 1))
def test_as_torchmetrics(seed):
    predicted, labels = answers(seed)
    matrix = multiclass_confusion_matrix(predicted, labels, num_classes=5)
    found = {pair[:2]: pair.images for pair in confused_pairs(predicted, labels, 5)}
    expected = {(i, j): int(matrix[i, j]) for i in range(5) for j in range(5) if i != j and matrix[i, j]}
    assert found == expected
    counts = list(found.values())
    assert counts == sorted(counts, reverse=True)
    told = balanced_accuracy(labels.numpy(), (predicted == labels).numpy(), np.ones(60, np.int64))
    assert told == pytest.approx(
        float(multiclass_accuracy(predicted, labels, num_classes=5, average="macro")), abs=1e-6
    )

"""NLL, ECE and the reliability diagram against formulas written again in NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.metrics.accuracy import CHUNK
from buttress.metrics.calibration import expected_calibration_error, negative_log_likelihood, reliability_bins

from .largest import Largest


def drawn(seed, scale=3.0, count=200, classes=7):
    generator = np.random.default_rng(seed)
    logits = (generator.normal(size=(count, classes)) * scale).astype(np.float32)
    return logits, generator.integers(0, classes, count)


def softmax(logits):
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def ece_by_hand(logits, labels):
    probabilities = softmax(logits)
    confidence = probabilities.max(1).astype(np.float32)
    right = probabilities.argmax(1) == labels
    bins = np.minimum(np.digitize(confidence, np.linspace(0, 1, 16, dtype=np.float32)) - 1, 14)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).sum() for b in set(bins)]
    return sum(gaps) / len(labels)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 3.0, 100.0]))
def test_nll(seed, scale):
    logits, labels = drawn(seed, scale)
    exact = logits.astype(np.float64)
    top = exact.max(1)
    log_sum = top + np.log(np.exp(exact - top[:, None]).sum(1))
    expected = (log_sum - exact[np.arange(len(labels)), labels]).mean()
    assert negative_log_likelihood(torch.from_numpy(logits), torch.from_numpy(labels)) == pytest.approx(
        expected, rel=1e-9
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 3.0, 100.0]))
def test_ece(seed, scale):
    logits, labels = drawn(seed, scale)
    told = expected_calibration_error(torch.from_numpy(logits), torch.from_numpy(labels))
    assert told == pytest.approx(ece_by_hand(logits, labels), abs=1e-5)


def test_a_confidence_of_one_belongs_to_the_last_bin():
    """Two sure answers, one wrong, and one at 0.94: one bin of three, not two bins."""
    logits = torch.tensor([[200.0, 0.0], [200.0, 0.0], [2.75, 0.0]])
    labels = torch.tensor([0, 1, 0])
    confidence = (1 + 1 + 1 / (1 + np.exp(-2.75))) / 3
    assert expected_calibration_error(logits, labels) == pytest.approx(abs(2 / 3 - confidence), abs=1e-6)
    assert reliability_bins(logits, labels)[-1].count == 3


def test_the_diagram_adds_up_to_the_ece():
    logits, labels = (torch.from_numpy(array) for array in drawn(1))
    bins: list[Any] = list(reliability_bins(logits, labels))
    assert len(bins) == 15
    assert sum(b.count for b in bins) == len(labels)
    assert bins[0].low == 0
    assert bins[-1].high == 1
    total = sum(abs(b.accuracy - b.confidence) * b.count for b in bins if b.count) / len(labels)
    assert total == pytest.approx(expected_calibration_error(logits, labels), abs=1e-6)
    assert all((b.confidence is None) == (b.count == 0) for b in bins)
    assert all(b.low <= b.confidence <= b.high for b in bins if b.count)


def test_many_samples_are_scored_a_chunk_at_a_time():
    logits, labels = drawn(0, count=2 * CHUNK + 5, classes=40)
    logits_NC, labels_N = torch.from_numpy(logits), torch.from_numpy(labels)
    with Largest() as made:
        nll = negative_log_likelihood(logits_NC, labels_N)
        ece = expected_calibration_error(logits_NC, labels_N)
    expected = -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()
    assert nll == pytest.approx(expected, rel=1e-9)
    assert ece == pytest.approx(ece_by_hand(logits, labels), abs=1e-5)
    assert made.bytes <= CHUNK * 40 * 8

"""Brier score, adaptive and class-wise ECE, temperature, risk and coverage: known answers, formulas written again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.metrics.accuracy import CHUNK
from buttress.metrics.adaptive_ece import adaptive_calibration_error
from buttress.metrics.brier import brier_scores
from buttress.metrics.calibration import negative_log_likelihood
from buttress.metrics.classwise_ece import classwise_calibration_error
from buttress.metrics.risk_coverage import risk_coverage
from buttress.metrics.temperature import best_temperature, cross_fitted

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, count: int = 200, classes: int = 6, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels that are drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator) * scale
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def fitted(logits: torch.Tensor, labels: torch.Tensor) -> float:
    best = best_temperature(logits, labels)
    assert best is not None
    return best


@given(seeds)
def test_brier(seed):
    logits, labels = drawn(seed)
    exact = np.exp(logits.double().numpy())
    exact /= exact.sum(1, keepdims=True)
    expected = ((exact - np.eye(6)[labels.numpy()]) ** 2).sum(1)
    assert brier_scores(logits, labels).numpy() == pytest.approx(expected, abs=1e-12)


def test_brier_of_sure_answers():
    assert brier_scores(torch.tensor([[1e4, 0.0], [0.0, 1e4]]), torch.tensor([0, 0])).tolist() == [0.0, 2.0]


def test_adaptive_ece_of_a_constructed_predictor():
    """Two bins of four: sure at 0.9 and right in 3 of 4, sure at 0.6 and right in 1 of 4."""
    confidence = torch.tensor([0.9, 0.6] * 4)
    right = torch.tensor([True, True, True, False, True, False, False, False])
    assert adaptive_calibration_error(confidence, right, bins=2) == pytest.approx((0.15 + 0.35) / 2)


@given(seeds, st.permutations(range(40)))
def test_adaptive_ece_does_not_see_the_order(seed, order):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.randint(1, 8, (40,), generator=generator) / 8  # with many ties
    right = torch.rand(40, generator=generator) < confidence
    one = adaptive_calibration_error(confidence, right)
    assert adaptive_calibration_error(confidence[order], right[order]) == pytest.approx(one, abs=1e-12)
    assert 0 <= one <= 1


def test_adaptive_ece_of_fewer_samples_than_bins():
    assert adaptive_calibration_error(torch.tensor([0.7, 0.9]), torch.tensor([True, False])) == pytest.approx(0.6)


@given(seeds)
def test_classwise_ece(seed):
    logits, labels = drawn(seed)
    probabilities = logits.double().softmax(1).numpy()
    total = 0.0
    for klass in range(6):
        own, is_it = probabilities[:, klass], labels.numpy() == klass
        bins = np.minimum(np.floor(own * 15).astype(int), 14)
        total += sum(abs(is_it[bins == b].mean() - own[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    assert classwise_calibration_error(logits, labels) == pytest.approx(total / 6, abs=1e-9)


@given(seeds, st.sampled_from([0.3, 1.0, 2.5]))
def test_the_temperature_is_the_best_of_its_neighbours(seed, factor):
    logits, labels = drawn(seed)
    logits = logits * factor
    best = fitted(logits, labels)
    at = {scale: negative_log_likelihood(logits / (best * scale), labels) for scale in (0.98, 1.0, 1.02)}
    assert at[1.0] <= min(at.values()) + 1e-9


def test_the_temperature_undoes_a_scaling():
    logits, labels = drawn(0, count=3000)
    best = fitted(logits, labels)
    assert best == pytest.approx(1, abs=0.1)
    assert fitted(logits * 3, labels) == pytest.approx(3 * best, rel=1e-5)
    assert fitted(logits * 0.1, labels) == pytest.approx(best / 10, rel=1e-5)


def test_no_temperature_is_best_for_all_right_all_wrong_or_nothing_said():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert best_temperature(logits, torch.tensor([0, 1])) is None
    assert best_temperature(logits, torch.tensor([1, 0])) is None
    assert best_temperature(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])) is None


def test_halves_that_cannot_be_fitted_scale_nothing():
    logits, labels = drawn(3, count=40)
    sure = logits * 0
    sure[torch.arange(40), labels] = 5.0  # the second half makes no error
    mixed = torch.where(torch.arange(40)[:, None] < 20, logits, sure)
    assert cross_fitted(mixed, labels, torch.arange(40) < 20) is None
    assert cross_fitted(logits, labels, torch.ones(40, dtype=torch.bool)) is None


def test_each_half_takes_the_temperature_of_the_other():
    logits, labels = drawn(1, count=400)
    logits[200:] *= 4
    first = torch.arange(400) < 200
    scaled = cross_fitted(logits, labels, first)
    assert scaled is not None
    assert torch.equal(scaled[:200], logits[:200] / fitted(logits[200:], labels[200:]))
    assert torch.equal(scaled[200:], logits[200:] / fitted(logits[:200], labels[:200]))


def test_more_rows_than_a_chunk_are_the_same():
    logits, labels = drawn(2, count=CHUNK + 100, classes=3)
    parts = [slice(0, 2000), slice(2000, None)]
    assert torch.equal(brier_scores(logits, labels), torch.cat([brier_scores(logits[p], labels[p]) for p in parts]))
    again = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    assert classwise_calibration_error(logits, labels) == pytest.approx(
        classwise_calibration_error(logits[again], labels[again]), abs=1e-12
    )
    assert fitted(logits, labels) == pytest.approx(fitted(logits[again], labels[again]), rel=1e-7)


def test_a_risk_coverage_curve_by_hand():
    """Sure and right, sure and right, less sure and wrong, least sure and right."""
    told = risk_coverage(torch.tensor([0.5, 0.9, 0.8, 0.6]), torch.tensor([True, True, True, False]), points=4)
    assert told.coverage == (0.25, 0.5, 0.75, 1.0)
    assert told.risk == pytest.approx((0, 0, 1 / 3, 1 / 4))
    assert told.area == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_equal_confidences_have_the_same_risk_at_every_coverage(right):
    told = risk_coverage(torch.full((len(right),), 0.5), torch.tensor(right))
    assert told.risk == pytest.approx([1 - sum(right) / len(right)] * len(told.risk))
    assert told.area == pytest.approx(1 - sum(right) / len(right))
    assert math.isclose(told.coverage[-1], 1)

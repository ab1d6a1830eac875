"""Losses against formulas written again in float64 NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.errors import SettingsError
from buttress.training.losses import hard_label_loss, loss_of, soft_target_loss


def log_softmax(logits):
    exact = logits.astype(np.float64)
    top = exact.max(1, keepdims=True)
    return exact - top - np.log(np.exp(exact - top).sum(1, keepdims=True))


def kl_by_hand(logits, targets):
    log_q, p = log_softmax(logits), targets.astype(np.float64)
    terms = [p[i, c] * (np.log(p[i, c]) - log_q[i, c]) for i, c in zip(*np.nonzero(p), strict=True)]
    return sum(terms) / len(p)


def drawn(seed, scale, count=6, classes=9):
    generator = np.random.default_rng(seed)
    logits = (generator.normal(size=(count, classes)) * scale).astype(np.float32)
    targets = generator.dirichlet(np.full(classes, 0.2), size=count).astype(np.float32)
    targets[0] = np.eye(classes)[generator.integers(classes)]
    return logits, targets, generator.integers(0, classes, count)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 30.0]))
def test_soft_target_loss_is_kl(seed, scale):
    logits, targets, _ = drawn(seed, scale)
    told = soft_target_loss(torch.from_numpy(logits), torch.from_numpy(targets)).item()
    assert told == pytest.approx(kl_by_hand(logits, targets), rel=1e-5, abs=1e-5)


def test_kl_is_zero_where_the_student_says_what_the_teacher_said():
    targets = torch.tensor([[0.7, 0.2, 0.1]])
    assert soft_target_loss(targets.log(), targets).item() == pytest.approx(0, abs=1e-7)


def test_the_gradient_is_that_of_the_soft_cross_entropy():
    logits, targets, _ = drawn(1, 2.0)
    student = torch.from_numpy(logits).requires_grad_()
    (gradient,) = torch.autograd.grad(soft_target_loss(student, torch.from_numpy(targets)), student)
    expected = (np.exp(log_softmax(logits)) - targets) / len(logits)
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.5]))
def test_hard_label_loss_is_cross_entropy_with_a_smoothed_target(seed, smoothing):
    logits, _, labels = drawn(seed, 2.0)
    classes = logits.shape[1]
    targets = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    expected = -(targets * log_softmax(logits)).sum(1).mean()
    told = hard_label_loss(torch.from_numpy(logits), torch.from_numpy(labels), smoothing=smoothing).item()
    assert told == pytest.approx(expected, rel=1e-5)


def test_the_kind_of_target_chooses_the_loss():
    logits, targets, labels = (torch.from_numpy(array) for array in drawn(2, 1.0))
    assert loss_of(logits, targets) == soft_target_loss(logits, targets)
    assert loss_of(logits, labels, smoothing=0.1) == hard_label_loss(logits, labels, smoothing=0.1)


def test_low_precision_logits_are_scored_in_float32():
    logits, targets, _ = (torch.from_numpy(array) for array in drawn(3, 1.0))
    low = logits.bfloat16()
    assert soft_target_loss(low, targets).dtype == torch.float32
    assert soft_target_loss(low, targets) == soft_target_loss(low.float(), targets)


def test_soft_targets_are_not_smoothed():
    with pytest.raises(SettingsError, match=r"label_smoothing = 0\.1: only hard labels"):
        loss_of(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]), smoothing=0.1)

"""Losses over sparse targets against formulas written again in float64, class by class."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buttress.loading.targets import SparseTargets
from buttress.training.losses import (
    binary_cross_entropy,
    entropy,
    even,
    kl_divergence,
    normalised_distillation,
    one_hot,
    soft_cross_entropy,
)

SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.sampled_from([0.01, 1.0, 30.0])


def log_softmax(logits):
    exact = logits.astype(np.float64)
    top = exact.max(1, keepdims=True)
    return exact - top - np.log(np.exp(exact - top).sum(1, keepdims=True))


def drawn(seed, scale=1.0, count=6, classes=9, k=4):
    """Logits, sparse targets (row 0 one-hot, row 1 with an empty slot), the same targets dense in float64, labels."""
    generator = np.random.default_rng(seed)
    logits = (generator.normal(size=(count, classes)) * scale).astype(np.float32)
    masses = generator.dirichlet(np.full(k + 1, 0.3), size=count)
    masses[0] = np.eye(k + 1)[0]
    masses[1, 1] = 0
    masses[1] /= masses[1].sum()
    if k == classes:
        masses[:, k] = 0
        masses /= masses.sum(1, keepdims=True)
    ids = np.stack([generator.permutation(classes)[:k] for _ in range(count)])
    masses = masses.astype(np.float32)
    targets = SparseTargets(
        values=torch.from_numpy(masses[:, :k]),
        ids=torch.from_numpy(ids),
        rest=torch.from_numpy(masses[:, k]),
        classes=classes,
    )
    dense = np.repeat(masses[:, k:].astype(np.float64) / max(classes - k, 1), classes, axis=1)
    for row in range(count):
        dense[row, ids[row]] = masses[row, :k]
    return logits, targets, dense, generator.integers(0, classes, count)


@given(SEEDS, SCALES, st.sampled_from([1, 4, 8, 9]))
def test_soft_cross_entropy(seed, scale, k):
    logits, targets, dense, _ = drawn(seed, scale, k=k)
    told = soft_cross_entropy(torch.from_numpy(logits), targets).numpy()
    np.testing.assert_allclose(told, -(dense * log_softmax(logits)).sum(1), rtol=2e-5, atol=2e-5)


@given(SEEDS, SCALES)
def test_kl_is_the_sum_over_classes_with_mass(seed, scale):
    logits, targets, dense, _ = drawn(seed, scale)
    log_q = log_softmax(logits)
    by_hand = np.zeros(len(dense))
    for i, c in zip(*np.nonzero(dense), strict=True):
        by_hand[i] += dense[i, c] * (math.log(dense[i, c]) - log_q[i, c])
    np.testing.assert_allclose(kl_divergence(torch.from_numpy(logits), targets).numpy(), by_hand, rtol=2e-5, atol=2e-5)


@given(SEEDS)
def test_kl_is_torchs_over_dense_targets(seed):
    logits, targets, _, _ = drawn(seed)
    log_q = torch.from_numpy(logits).log_softmax(1)
    expected = torch.nn.functional.kl_div(log_q, targets.dense(), reduction="none").sum(1)
    torch.testing.assert_close(kl_divergence(torch.from_numpy(logits), targets), expected, rtol=1e-5, atol=1e-6)


def test_kl_is_zero_where_the_student_says_what_the_teacher_said():
    _, targets, dense, _ = drawn(4)
    logits = torch.from_numpy(np.log(np.maximum(dense, 1e-30)).astype(np.float32))
    assert kl_divergence(logits, targets)[2:].abs().max() < 1e-6


@given(SEEDS)
def test_the_gradient_of_kl_is_that_of_the_soft_cross_entropy(seed):
    logits, targets, dense, _ = drawn(seed, 2.0)
    for loss in (kl_divergence, soft_cross_entropy):
        student = torch.from_numpy(logits).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(student, targets).sum(), student)
        np.testing.assert_allclose(gradient.numpy(), np.exp(log_softmax(logits)) - dense, atol=2e-6)


@given(SEEDS, st.sampled_from([0.01, 1.0, 8.0]))
def test_binary_cross_entropy(seed, scale):
    logits, targets, dense, _ = drawn(seed, scale)
    z = logits.astype(np.float64)
    log_p, log_not = -np.logaddexp(0, -z), -np.logaddexp(0, z)
    expected = -(dense * log_p + (1 - dense) * log_not).mean(1)
    told = binary_cross_entropy(torch.from_numpy(logits), targets).numpy()
    np.testing.assert_allclose(told, expected, rtol=1e-5, atol=2e-6)


def nkd_by_hand(logits, dense, labels, gamma):
    """Row by row: the target's own term, and the cross-entropy of what is left when the target is taken out."""
    result = []
    for z, p, t in zip(logits.astype(np.float64), dense, labels, strict=True):
        log_q = z - z.max() - math.log(np.exp(z - z.max()).sum())
        others = [c for c in range(len(z)) if c != t]
        z_others = z[others]
        log_q_others = z_others - z_others.max() - math.log(np.exp(z_others - z_others.max()).sum())
        left = p[others].sum()
        second = 0.0 if left == 0 else -(p[others] / left * log_q_others).sum()
        result.append(-p[t] * log_q[t] + gamma * second)
    return np.array(result)


@given(SEEDS, st.sampled_from([0.01, 1.0, 8.0]), st.sampled_from([0.0, 1.0, 1.5]))
def test_nkd(seed, scale, gamma):
    logits, targets, dense, labels = drawn(seed, scale)
    told = normalised_distillation(torch.from_numpy(logits), targets, torch.from_numpy(labels), gamma=gamma).numpy()
    np.testing.assert_allclose(told, nkd_by_hand(logits, dense, labels, gamma), rtol=1e-4, atol=1e-4)


def test_nkd_without_labels_takes_the_likeliest_class():
    logits, targets, dense, _ = drawn(5)
    none = torch.full((len(logits),), -1)
    labels = targets.ids.numpy()[np.arange(len(logits)), targets.values.numpy().argmax(1)]
    told = normalised_distillation(torch.from_numpy(logits), targets, none, gamma=1.5).numpy()
    np.testing.assert_allclose(told, nkd_by_hand(logits, dense, labels, 1.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [kl_divergence, soft_cross_entropy, binary_cross_entropy])
def test_gradients_in_float64(loss):
    _, targets, _, _ = drawn(6)
    exact = SparseTargets(
        values=targets.values.double(), ids=targets.ids, rest=targets.rest.double(), classes=targets.classes
    )
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (analytic,) = torch.autograd.grad(loss(logits.requires_grad_(), exact).sum(), logits)
    step = 1e-2  # the losses are float32 inside
    for i, c in ((0, 0), (1, 3), (5, 8)):
        moved = torch.zeros_like(logits)
        moved[i, c] = step
        slope = (loss(logits + moved, exact).sum() - loss(logits - moved, exact).sum()) / (2 * step)
        assert slope.item() == pytest.approx(analytic[i, c].item(), abs=2e-3)


def test_nkd_has_finite_gradients_where_the_target_is_certain():
    labels = torch.tensor([2, 0])
    targets = one_hot(labels, 9)
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = normalised_distillation(logits, targets, labels, gamma=1.5)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, labels, reduction="none"))


@given(SEEDS)
def test_hard_labels_are_targets_of_one_class(seed):
    logits, _, _, labels = drawn(seed)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none")
    told = soft_cross_entropy(torch.from_numpy(logits), one_hot(torch.from_numpy(labels), 9))
    torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-6)


def test_no_label_has_no_mass():
    targets = one_hot(torch.tensor([-1, 3]), 9)
    assert targets.values.tolist() == [[0.0], [1.0]]
    assert soft_cross_entropy(torch.randn(2, 9), targets)[0] == 0


def test_the_even_target_is_one_over_c_everywhere():
    targets = even(one_hot(torch.tensor([1, 3]), 5))
    torch.testing.assert_close(targets.dense(), torch.full((2, 5), 0.2))
    torch.testing.assert_close(entropy(targets), torch.full((2,), math.log(5)))


def test_low_precision_logits_are_scored_in_float32():
    logits, targets, _, labels = drawn(3)
    low = torch.from_numpy(logits).bfloat16()
    for loss in (kl_divergence, soft_cross_entropy, binary_cross_entropy):
        assert loss(low, targets).dtype == torch.float32
        torch.testing.assert_close(loss(low, targets), loss(low.float(), targets))
    told = normalised_distillation(low, targets, torch.from_numpy(labels), gamma=1.0)
    assert told.dtype == torch.float32


@pytest.mark.parametrize("gap", [2.0, 18.0, 28.0, 40.0])
def test_nkd_keeps_its_digits_where_the_teacher_is_sure(gap):
    """Value and gradient against float64, with dense targets as of a live teacher."""
    generator = np.random.default_rng(0)
    said = generator.normal(size=(8, 10))
    labels = generator.integers(0, 10, 8)
    said[np.arange(8), labels] = said.max(1) + gap
    dense = np.exp(log_softmax(said)).astype(np.float32)
    ids = torch.arange(10).expand(8, 10)
    targets = SparseTargets(values=torch.from_numpy(dense), ids=ids, rest=torch.zeros(8), classes=10)
    logits = generator.normal(size=(8, 10)).astype(np.float32)
    student = torch.from_numpy(logits).requires_grad_()
    told = normalised_distillation(student, targets, torch.from_numpy(labels), gamma=1.5)
    expected = nkd_by_hand(logits, dense.astype(np.float64), labels, 1.5)
    np.testing.assert_allclose(told.detach().numpy(), expected, rtol=1e-4)
    (gradient,) = torch.autograd.grad(told.sum(), student)
    step = 1e-3
    for c in range(10):
        moved = np.zeros_like(logits)
        moved[:, c] = step
        wide = logits.astype(np.float64)
        slope = nkd_by_hand(wide + moved, dense.astype(np.float64), labels, 1.5)
        slope = (slope - nkd_by_hand(wide - moved, dense.astype(np.float64), labels, 1.5)) / (2 * step)
        np.testing.assert_allclose(gradient[:, c].numpy(), slope, atol=1e-4)

"""Planted wrong labels are found, whatever the teacher's confidence and the kind of error; right ones stay."""

from __future__ import annotations

import numpy as np
import pytest

from buttress.metrics.consensus import Consensus
from buttress.metrics.label_errors import CUT, label_noise

SAMPLES, CLASSES, KEPT = 3000, 20, 5


def teacher_of_pairs(seed, sharpness=1.0):
    """Probabilities [N, C] of a teacher that mixes up classes 2c and 2c + 1, calibrated at sharpness 1; the truth [N].

    The truth is drawn from the probabilities themselves, which is what calibrated means.
    """
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, CLASSES, SAMPLES)
    logits = rng.normal(0, 1, (SAMPLES, CLASSES))
    logits[np.arange(SAMPLES), centre] += rng.uniform(3, 12, SAMPLES)
    logits[np.arange(SAMPLES), centre ^ 1] += rng.uniform(0, 5, SAMPLES)
    masses = np.exp(logits - logits.max(axis=1, keepdims=True))
    masses /= masses.sum(axis=1, keepdims=True)
    truth = (masses.cumsum(axis=1) > rng.random((SAMPLES, 1))).argmax(axis=1)
    said = masses**sharpness
    return said / said.sum(axis=1, keepdims=True), truth


def as_consensus(masses, labels):
    """The K largest of each row, as they come out of a store."""
    ids = np.argsort(-masses, axis=1, kind="stable")[:, :KEPT]
    values = np.take_along_axis(masses, ids, axis=1)
    zeros = np.zeros(len(masses))
    return Consensus(
        values_NK=values,
        ids_NK=ids,
        rest_N=1 - values.sum(axis=1),
        given_N=masses[np.arange(len(masses)), labels],
        entropy_N=zeros,
        disagreement_N=zeros,
    )


def planted(truth, share, seed, kind):
    """Labels of which a share is moved to any other class, or to the one that looks alike."""
    rng = np.random.default_rng(seed)
    labels = truth.copy()
    chosen = rng.permutation(len(truth))[: round(share * len(truth))]
    other = truth[chosen] ^ 1 if kind == "alike" else (truth[chosen] + rng.integers(1, CLASSES, len(chosen))) % CLASSES
    labels[chosen] = other
    return labels.astype(np.int32)


def f1(flagged, wrong):
    """Harmonic mean of precision and recall."""
    return 2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum())


def best_possible(masses, labels, share, kind):
    """What a judge flags who knows the right probabilities, the share and the kind of the errors."""
    rows = np.arange(len(masses))
    own = masses[rows, labels]
    other = masses[rows, labels ^ 1] if kind == "alike" else (1 - own) / (CLASSES - 1)
    return share * other > (1 - share) * own


@pytest.mark.parametrize("kind", ["any", "alike"])
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_planted_errors_are_found_nearly_as_well_as_can_be_at_any_confidence(kind, sharpness):
    masses, truth = teacher_of_pairs(0, sharpness)
    labels = planted(truth, 0.1, 1, kind)
    noise = label_noise(as_consensus(masses, labels), labels, CLASSES)
    wrong = labels != truth
    best = f1(best_possible(teacher_of_pairs(0)[0], labels, 0.1, kind), wrong)
    assert best > 0.6
    assert f1(noise.wrong_N > CUT, wrong) > best - 0.06
    assert noise.share == pytest.approx(0.1, abs=0.03)
    assert (noise.uniform > noise.confused) == (kind == "any")
    assert noise.temperature == pytest.approx(sharpness, rel=0.25)


def test_scores_are_probabilities_that_hold():
    """Of the labels that are said to be wrong with probability p, about p are."""
    masses, truth = teacher_of_pairs(2)
    labels = planted(truth, 0.2, 3, "any")
    noise = label_noise(as_consensus(masses, labels), labels, CLASSES)
    wrong = labels != truth
    assert noise.wrong_N.sum() == pytest.approx(wrong.sum(), rel=0.1)
    middle = (noise.wrong_N > 0.2) & (noise.wrong_N < 0.8)
    assert 0.3 < wrong[middle].mean() < 0.7


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_labels_are_left_alone(seed):
    masses, truth = teacher_of_pairs(seed)
    labels = truth.astype(np.int32)
    noise = label_noise(as_consensus(masses, labels), labels, CLASSES)
    assert (noise.wrong_N > CUT).sum() <= 0.005 * SAMPLES
    assert noise.share < 0.01


def test_the_order_and_the_number_of_samples_do_not_matter(monkeypatch):
    masses, truth = teacher_of_pairs(4)
    labels = planted(truth, 0.1, 5, "any")
    noise = label_noise(as_consensus(masses, labels), labels, CLASSES)
    order = np.random.default_rng(6).permutation(SAMPLES)
    shuffled = label_noise(as_consensus(masses[order], labels[order]), labels[order], CLASSES)
    np.testing.assert_allclose(shuffled.wrong_N, noise.wrong_N[order], atol=1e-6)
    monkeypatch.setattr("buttress.metrics.label_errors.FITTED", 1000)
    sampled = label_noise(as_consensus(masses, labels), labels, CLASSES)
    assert ((sampled.wrong_N > CUT) == (noise.wrong_N > CUT)).mean() > 0.99


def test_extreme_answers_give_numbers():
    masses = np.eye(4)[[0, 0, 1, 2, 3, 3]]
    labels = np.array([0, 1, 1, 2, 3, 3], np.int32)
    said = Consensus(
        values_NK=np.ones((6, 1)),
        ids_NK=masses.argmax(axis=1)[:, None],
        rest_N=np.zeros(6),
        given_N=masses[np.arange(6), labels],
        entropy_N=np.zeros(6),
        disagreement_N=np.zeros(6),
    )
    noise = label_noise(said, labels, 4)
    assert (noise.wrong_N > CUT).tolist() == [False, True, False, False, False, False]
    assert np.isfinite(noise.wrong_N).all()
    assert 0 <= noise.share <= 1

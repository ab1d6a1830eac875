"""Which labels are likely wrong, from what a teacher says of the images: a model of how labels go wrong, fitted to all.

The true class of a sample is drawn from the teacher's probabilities, made as sharp or as flat as the labels say:
`q_c ~ p_c ^ (1 / temperature)`. The label is that class; or, with a share `uniform`, any other class; or, with a share
`confused`, one that the teacher mixes up with it: `confusion(c -> y)` is the share of y in what it says, beside c, of
the samples labelled c. These three numbers are those under which the labels are likeliest (EM over the shares, a search
over the temperature), and a label's score is the probability that it is wrong.

So the cut, one half, needs no threshold that somebody chose, and holds for teachers that are too sure or not sure
enough. Confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70) cuts by each class's mean probability instead:
benchmarks/health.py compares the two.

Shapes: N samples, K kept classes, C classes, P pairs of classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from buttress.metrics.consensus import Consensus

CUT = 0.5
TEMPERATURES = np.geomspace(4, 0.2, 21)
START = np.array([0.9, 0.05, 0.05])
FITTED = 20_000  # samples that the temperature is searched on, at most
STEPS, TOLERANCE = 500, 1e-6
SPREAD = 0.5  # standard deviation of the temperature's logarithm about 0, before any label is seen

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelNoise:
    """How wrong a source's labels are.

    Args:
        wrong_N: probability, 0..1, that a sample's label is wrong.
        uniform: share of labels, 0..1, that are any other class.
        confused: share of labels, 0..1, that are a class like the right one.
        temperature: above 0; below 1 where the teacher is less sure than it could be, above 1 where it is too sure.
    """

    wrong_N: Floats
    uniform: float
    confused: float
    temperature: float

    @property
    def share(self) -> float:
        """Share of labels, 0..1, estimated to be wrong: also of those that cannot be told."""
        return self.uniform + self.confused


def label_noise(said: Consensus, labels_N: NDArray[np.int32], classes: int) -> LabelNoise:
    """Fit the model.

    Args:
        said: the teacher's answers about N samples, 1 and up.
        labels_N: their labels, 0..C-1.
        classes: C, 2 and up.
    """
    every = np.arange(len(said))
    some = every[:: -(-len(said) // FITTED)]
    evidence = _Evidence(said, labels_N, classes, some)
    best, shares = _search(evidence)
    evidence = evidence if len(some) == len(said) else _Evidence(said, labels_N, classes, every)
    fit = _fit(evidence.kinds(best), shares)
    return LabelNoise(
        wrong_N=fit.wrong_N, uniform=float(fit.shares[1]), confused=float(fit.shares[2]), temperature=best
    )


def _search(evidence: _Evidence) -> tuple[float, Floats]:
    """The likeliest temperature, and the shares at it.

    A dozen contradictions in a small set can be explained by errors and as well by a teacher that is far too sure; so
    before any label is seen a teacher is taken at its word, and that counts as much as a few labels.
    """
    best, highest, chosen, shares = 1.0, -np.inf, START, START
    for temperature in TEMPERATURES.tolist():
        fit = _fit(evidence.kinds(temperature), shares)
        shares = np.maximum(fit.shares, 0.01)  # the next temperature's are near
        posterior = fit.likelihood - (np.log(temperature) / SPREAD) ** 2 / 2
        if posterior > highest:
            best, highest, chosen = temperature, posterior, shares
    return best, chosen


class _Evidence:
    """What the teacher says for each label being right, any other class, or a class like the right one.

    Args:
        said: the teacher's answers. labels_N: the labels. classes: C. some: the samples that are looked at.
    """

    def __init__(self, said: Consensus, labels_N: NDArray[np.int32], classes: int, some: NDArray[np.int64]) -> None:
        self._classes, self._others = classes, classes - said.ids_NK.shape[1]
        self._labels_N = labels_N[some].astype(np.int64)
        ids_NK = said.ids_NK[some]
        with np.errstate(divide="ignore"):
            self._logs_NK, self._log_given_N = np.log(said.values_NK[some]), np.log(said.given_N[some])
            self._log_tail_N = np.log(said.rest_N[some] / max(self._others, 1))
        self._own_NK = ids_NK == self._labels_N[:, None]
        # the pairs (label -> class) that occur, and among them the place of (class -> label): 0 mass where it is not
        self._pairs_P, places = np.unique(self._labels_N[:, None] * classes + ids_NK, return_inverse=True)
        self._places_NK = places.reshape(ids_NK.shape)
        asked_NK = ids_NK * classes + self._labels_N[:, None]
        back_NK = np.minimum(np.searchsorted(self._pairs_P, asked_NK), len(self._pairs_P) - 1)
        self._back_NK = np.where(self._pairs_P[back_NK] == asked_NK, back_NK, len(self._pairs_P))

    def kinds(self, temperature: float) -> Floats:
        """Likelihoods [N, 3] at a temperature."""
        masses_NK, own_N = self._sharpened(1 / temperature)
        confusion_P = self._confusion(masses_NK, own_N)
        confused_N = (masses_NK * confusion_P[self._back_NK]).sum(axis=1)
        return np.stack([own_N, (1 - own_N) / (self._classes - 1), confused_N], axis=1)

    def _sharpened(self, power: float) -> tuple[Floats, Floats]:
        """q of the kept classes but the label [N, K], and of the label [N]."""
        masses_NK = np.exp(power * self._logs_NK)
        total_N = masses_NK.sum(axis=1)
        if self._others:
            total_N += self._others * np.exp(power * self._log_tail_N)
        own_N = np.clip(np.exp(power * self._log_given_N) / total_N, 0, 1)
        return np.where(self._own_NK, 0, masses_NK) / total_N[:, None], own_N

    def _confusion(self, masses_NK: Floats, own_N: Floats) -> Floats:
        """confusion(c -> y) of the pairs that occur, and 0 behind them."""
        sums_P = np.bincount(self._places_NK.ravel(), masses_NK.ravel(), len(self._pairs_P))
        totals_C = np.bincount(self._labels_N, 1 - own_N, self._classes)
        return np.append(sums_P / np.maximum(totals_C[self._pairs_P // self._classes], 1e-12), 0)


class _Fit(NamedTuple):
    """Log-likelihood, shares [3] (right, uniform, confused), probability [N] that a label is wrong."""

    likelihood: float
    shares: Floats
    wrong_N: Floats


def _fit(kinds_N3: Floats, shares: Floats) -> _Fit:
    """EM over the shares, from the given ones."""
    kinds_3N = np.maximum(np.ascontiguousarray(kinds_N3.T), 1e-300)
    for _ in range(STEPS):
        joint_3N = shares[:, None] * kinds_3N
        total_N = joint_3N.sum(axis=0)
        before, shares = shares, (joint_3N / total_N).mean(axis=1)
        if np.abs(shares - before).max() < TOLERANCE:
            break
    joint_3N = shares[:, None] * kinds_3N
    total_N = joint_3N.sum(axis=0)
    return _Fit(float(np.log(total_N).sum()), shares, 1 - joint_3N[0] / total_N)

"""What a teacher said of each sample over its views, from the stored answers alone. No teacher and no torch.

Shapes: N samples, M of them at a time, X of those in one view, V views, K kept classes, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from buttress.store.reader import Reinforcement

DENSE = 1 << 20  # probabilities held at a time, [M, C]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Consensus:
    """The mean over the views of the teacher's probabilities, and how far the views are from one another.

    Args:
        values_NK: 0..1, mean probabilities of the K classes with the largest, descending.
        ids_NK: these classes.
        rest_N: 0..1, mass of all other classes together.
        given_N: 0..1, mean probability of the sample's label; NaN where it has none.
        entropy_N: of the mean, 0..log C, nat.
        disagreement_N: how much of it is views that contradict one another: the entropy of the mean minus the mean
            entropy of a view (Jensen-Shannon divergence), 0 and up, nat.
    """

    values_NK: Floats
    ids_NK: NDArray[np.int64]
    rest_N: Floats
    given_N: Floats
    entropy_N: Floats
    disagreement_N: Floats

    def __len__(self) -> int:
        return len(self.rest_N)

    def of(self, numbers: NDArray[np.int64]) -> Consensus:
        """The same of some of the samples."""
        return Consensus(**{field.name: getattr(self, field.name)[numbers] for field in fields(Consensus)})


def consensus(
    store: Reinforcement,
    rows_N: NDArray[np.int64],
    labels_N: NDArray[np.int32],
    asked_NV: NDArray[np.bool_] | None = None,
) -> Consensus:
    """Read the views of some rows.

    Args:
        store: what the teacher said.
        rows_N: rows of the store, none of them absent.
        labels_N: the samples' labels among the stored classes; -1 = none.
        asked_NV: which views count, of every row at least one; none = all.

    Raises:
        StoreError: what is read is damaged.
    """
    if asked_NV is None:
        asked_NV = np.ones((len(rows_N), store.views), np.bool_)
    step = max(1, DENSE // len(store.classes))
    pieces = [
        _of_rows(store, rows_N[first : first + step], labels_N[first : first + step], asked_NV[first : first + step])
        for first in range(0, max(len(rows_N), 1), step)
    ]
    joined = {field.name: np.concatenate([getattr(one, field.name) for one in pieces]) for field in fields(Consensus)}
    return Consensus(**joined)


def _of_rows(
    store: Reinforcement, rows_M: NDArray[np.int64], labels_M: NDArray[np.int32], asked_MV: NDArray[np.bool_]
) -> Consensus:
    count, classes = len(rows_M), len(store.classes)
    sum_MC, even_sum_M, entropies_M = np.zeros((count, classes)), np.zeros(count), np.zeros(count)
    others, views_M = classes - store.k, asked_MV.sum(axis=1)
    for there, values_XK, ids_XK, rest_X in _views(store, rows_M, asked_MV):
        even_X = rest_X / others if others else rest_X
        even_sum_M[there] += even_X
        sum_MC[there[:, None], ids_XK] += values_XK - even_X[:, None]
        entropies_M[there] += _entropy(values_XK) + others * _entropy(even_X[:, None])
    mean_MC = np.maximum(sum_MC + even_sum_M[:, None], 0) / views_M[:, None]
    top_MK = np.argsort(-mean_MC, axis=1, kind="stable")[:, : store.k]
    means_MK = np.take_along_axis(mean_MC, top_MK, axis=1)
    entropy_M = _entropy(mean_MC)
    given_M = mean_MC[np.arange(count), np.maximum(labels_M, 0)]
    return Consensus(
        values_NK=means_MK,
        ids_NK=top_MK,
        rest_N=np.maximum(mean_MC.sum(axis=1) - means_MK.sum(axis=1), 0),
        given_N=np.where(labels_M >= 0, given_M, np.nan),
        entropy_N=entropy_M,
        disagreement_N=np.maximum(entropy_M - entropies_M / views_M, 0),
    )


def _views(
    store: Reinforcement, rows_M: NDArray[np.int64], asked_MV: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], Floats, NDArray[np.int32], Floats]]:
    """View by view: which of the rows it is asked of, and what the teacher said of them."""
    for view in range(store.views):
        there = np.flatnonzero(asked_MV[:, view])
        values_XK, ids_XK, rest_X = store.targets(rows_M[there], view)
        yield there, values_XK.astype(np.float64), ids_XK, rest_X.astype(np.float64)


def _entropy(masses_MX: Floats) -> Floats:
    """Sum of -p log p over the last axis, nat."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms_MX = np.where(masses_MX > 0, -masses_MX * np.log(masses_MX), 0)
    result: Floats = terms_MX.sum(axis=-1)
    return result

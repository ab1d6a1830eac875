"""What a teacher said over all views, against the same by hand, class by class."""

from __future__ import annotations

import numpy as np
import pytest
from tests.store.small_store import Plan, densify

from buttress.metrics import consensus as room
from buttress.metrics.consensus import consensus
from buttress.store.reader import open_reinforcement


def entropy(masses):
    return float(-sum(p * np.log(p) for p in masses if p > 0))


@pytest.mark.parametrize(("k", "classes"), [(3, 7), (7, 7), (1, 4)])
@pytest.mark.parametrize("dense", [1 << 20, 14])
def test_it_is_the_mean_over_the_views(tmp_path, monkeypatch, k, classes, dense):
    monkeypatch.setattr(room, "DENSE", dense)  # 14: two rows of seven classes at a time
    plan = Plan(rows=9, views=5, k=k, classes=classes)
    store = open_reinforcement(plan.write(tmp_path / "store", row_cuts=(4,), view_cuts=(2,)))
    rows = np.array([8, 0, 3, 4])
    labels = np.array([2, -1, 0, 3], np.int32)
    said = consensus(store, rows, labels)
    assert len(said) == 4
    for number, row in enumerate(rows.tolist()):
        views_VC = np.concatenate([densify(*store.targets(np.array([row]), view), classes) for view in range(5)])
        mean_C = views_VC.astype(np.float64).mean(axis=0)
        order = np.argsort(-mean_C, kind="stable")[:k]
        assert said.ids_NK[number].tolist() == order.tolist()
        np.testing.assert_allclose(said.values_NK[number], mean_C[order], atol=1e-6)
        assert said.rest_N[number] == pytest.approx(mean_C.sum() - mean_C[order].sum(), abs=1e-6)
        assert said.entropy_N[number] == pytest.approx(entropy(mean_C), abs=1e-4)
        apart = entropy(mean_C) - np.mean([entropy(view_C) for view_C in views_VC])
        assert said.disagreement_N[number] == pytest.approx(apart, abs=1e-4)
        label = int(labels[number])
        assert np.isnan(said.given_N[number]) if label < 0 else said.given_N[number] == pytest.approx(mean_C[label])


def test_views_that_agree_do_not_disagree(tmp_path):
    plan = Plan(rows=4, views=3)
    plan.labels_VNS[1:] = plan.labels_VNS[0]
    said = consensus(open_reinforcement(plan.write(tmp_path / "s")), np.arange(4), np.zeros(4, np.int32))
    assert said.disagreement_N.max() < 1e-6
    assert said.entropy_N.min() > 0.01


def test_no_samples_are_no_trouble(tmp_path):
    store = open_reinforcement(Plan(rows=3, views=2).write(tmp_path / "s"))
    assert len(consensus(store, np.zeros(0, np.int64), np.zeros(0, np.int32))) == 0

"""The table of docs/trainers.md: its intervals, and what the page says of them."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import trainers
from scipy import stats


@pytest.fixture
def recorded(monkeypatch):
    """Put runs in the place of the recorded ones: top-1 by arm; NLL is a tenth of it."""

    def put(**runs):
        lines = [
            {"trial": {"arm": arm, "seed": seed}, "top1": {"value": value}, "nll": {"value": value / 10}}
            for arm, values in runs.items()
            for seed, value in enumerate(values)
        ]
        monkeypatch.setattr(trainers, "lines", lambda: lines)

    return put


def test_the_interval_is_students_for_two_means_at_a_shared_level(recorded):
    ours, theirs = [0.90, 0.92, 0.91, 0.95], [0.93, 0.94, 0.96]
    recorded(buttress=ours, timm=theirs)
    middle, reach = trainers.difference("timm", "top1")
    comparisons = 2 * (len(trainers.NAMES) - 1)
    expected = stats.ttest_ind(theirs, ours).confidence_interval(1 - 0.05 / comparisons)
    assert middle == pytest.approx(np.mean(theirs) - np.mean(ours))
    assert (middle - reach, middle + reach) == pytest.approx(tuple(expected))


def test_a_trainer_that_is_worse_is_found(recorded):
    same = [0.90, 0.91, 0.92, 0.91]
    recorded(buttress=same, timm=same, lightning=[0.91, 0.90, 0.91, 0.92], transformers=[0.80, 0.81, 0.80, 0.82])
    assert trainers.apart() == [("transformers", "top1"), ("transformers", "nll")]


def test_no_trainer_differs_from_ours_as_the_page_says():
    assert {line["trial"]["seed"] for line in trainers.lines()} == set(trainers.SEEDS)
    assert all(len(trainers.values(arm, "top1")) == len(trainers.SEEDS) for arm in trainers.NAMES)
    assert trainers.apart() == []
    assert "In none of them is 0 left out" in trainers.PAGE.read_text()


def test_all_recorded_runs_share_store_and_number_of_updates():
    assert len({(line["store"], line["updates"]) for line in trainers.lines()}) == 1

"""Several trainings of one model against each other."""

from __future__ import annotations

import numpy as np
import pytest

from buttress.errors import SettingsError
from buttress.sources import Subset
from buttress.training.comparison import Arm, compare, gain_of, spread
from buttress.training.comparison_sets import digit_sets
from buttress.training.data import TrainingData
from buttress.training.settings import TrainingSettings
from buttress.views.presets import preset


def test_spread_is_mean_and_sample_deviation():
    assert spread([1.0, 2.0, 4.0]) == {"mean": pytest.approx(7 / 3), "sd": pytest.approx(np.std([1, 2, 4], ddof=1))}
    assert spread([0.5]) == {"mean": 0.5, "sd": None}


def row(top1: float, nll: float) -> dict[str, dict[str, float]]:
    return {"top1": {"mean": top1}, "nll": {"mean": nll}, "ece": {"mean": 0.1}}


@pytest.mark.parametrize(
    ("top1", "nll", "holds"), [(0.6, 0.9, True), (0.5, 0.9, False), (0.6, 1.0, False), (0.4, 0.9, False)]
)
def test_the_gain_holds_where_top1_rises_and_nll_falls(top1, nll, holds):
    gain = gain_of(row(0.5, 1.0), row(top1, nll))
    assert gain["holds"] is holds
    assert gain["top1"] == pytest.approx(top1 - 0.5)
    assert gain["clean_top1"] is None
    assert gain_of(row(0.5, 1.0), row(top1, nll), row(0.7, 1))["clean_top1"] == pytest.approx(0.2)


def test_trainings_of_different_length_are_not_compared(tmp_path):
    sets, policy = digit_sets(), preset("small")
    arms = [
        Arm(name=str(count), title="", data=TrainingData(source=Subset(sets.train, range(count)), policy=policy))
        for count in (16, 32)
    ]
    with pytest.raises(SettingsError, match="steps"):
        compare(
            arms,
            model="timm:test_mambaout",
            size=16,
            settings=TrainingSettings(epochs=1, batch=16, workers=0),
            seeds=[0],
            test=Subset(sets.test, range(8)),
            out=tmp_path,
        )


def test_the_same_data_and_seed_give_the_same_outcome(tmp_path):
    sets, policy = digit_sets(), preset("small")
    data = TrainingData(source=Subset(sets.train, range(32)), policy=policy)
    first, second = compare(
        [Arm(name=name, title="", data=data) for name in ("one", "two")],
        model="timm:test_mambaout",
        size=16,
        settings=TrainingSettings(epochs=1, batch=16, workers=0),
        seeds=[0, 1],
        test=Subset(sets.test, range(8)),
        out=tmp_path,
    )
    assert first.steps == second.steps == 2
    for seed in (0, 1):
        np.testing.assert_array_equal(first.logits[seed], second.logits[seed])
    assert not np.array_equal(first.logits[0], first.logits[1])
    np.testing.assert_array_equal(first.labels, sets.test.labels[:8])

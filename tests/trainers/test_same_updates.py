"""In every trainer a reinforced dataset leads to the weights that our own training ends with."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from benchmarks.trainer_arms import OTHERS, Setup, State, buttress, timm_script

DRIVER = Path(__file__).with_name("timm_driver.py")
LIGHTNING_WARNS = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)`:FutureWarning")
TRAINERS: dict[str, Callable[[Setup], State]] = {**OTHERS, "timm's pieces": partial(timm_script, script=DRIVER)}


def distance(one, other):
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


@pytest.mark.parametrize(
    "trainer", [pytest.param(name, marks=LIGHTNING_WARNS) if name == "lightning" else name for name in TRAINERS]
)
def test_it_ends_with_the_weights_of_ours(trainer, setup):
    ours, theirs = buttress(setup), TRAINERS[trainer](setup)
    assert ours.keys() == theirs.keys()
    assert distance(ours, setup.student().module.state_dict()) > 0.1
    assert distance(ours, theirs) < 1e-3


@pytest.mark.skipif("BUTTRESS_TIMM_TRAIN" not in os.environ, reason="no train.py of timm's repository is named")
def test_the_driver_does_what_timms_script_does(setup):
    ends = [timm_script(setup, script) for script in (DRIVER, Path(os.environ["BUTTRESS_TIMM_TRAIN"]))]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name

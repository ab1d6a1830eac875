"""All figures of one pass: each equal to its own function, intervals that hold the value, details that add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from buttress.metrics.calibration import expected_calibration_error, top1
from buttress.metrics.clean import clean_details, clean_figures
from buttress.metrics.evaluate import Evaluation, Predicted
from buttress.metrics.risk_coverage import risk_coverage

NAMES = ("cat", "dog", "eel", "fox", "gnu", "hen")


def evaluation(count: int = 300, scale: float = 3.0) -> Evaluation:
    """Labels drawn from half the logits: a temperature of 2 is right."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, len(NAMES), generator=generator) * scale
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    return Evaluation.of(Predicted(logits, labels, tuple(f"{number:03d}.png" for number in range(count))), NAMES)


def test_every_figure_has_a_value_and_intervals_hold_it():
    told = evaluation()
    figures = clean_figures(told)
    for name, figure in told.figures.items():
        assert figures[name]["value"] == pytest.approx(figure["value"], abs=1e-6)
    right = torch.from_numpy(told.logits.argmax(1) == told.labels)
    confidence, _ = top1(torch.from_numpy(told.logits))
    assert figures["aurc"]["value"] == pytest.approx(risk_coverage(confidence, right).area, abs=1e-9)
    without = {name for name, figure in figures.items() if figure["low"] is None}
    assert without == {"ece_adaptive", "ece_classwise", "temperature"}
    for name, figure in figures.items():
        value, low, high = (figure[key] for key in ("value", "low", "high"))
        assert value is not None, name
        assert figure["count"] == 300
        if low is not None and high is not None:
            assert low - 1e-6 <= value <= high + 1e-6, name
    json.dumps(figures)


def test_sure_answers_of_one_confidence_keep_their_risk_in_the_interval():
    """Sorted by class, as folders are, and mostly at the highest confidence that float32 has."""
    labels = torch.arange(6).repeat_interleave(50)
    logits = torch.nn.functional.one_hot((labels + (torch.arange(300) % 4 == 0)) % 6, 6) * 60.0
    told = Evaluation.of(Predicted(logits, labels, tuple(map(str, range(300)))), NAMES)
    figure = clean_figures(told)["aurc"]
    assert figure["value"] == pytest.approx(0.25)
    assert 0.18 < float(figure["low"] or 0) < 0.25 < float(figure["high"] or 0) < 0.32


def test_scaling_calibrates_an_overconfident_model():
    figures = clean_figures(evaluation(3000))
    assert float(figures["temperature"]["value"] or 0) == pytest.approx(2, rel=0.1)
    assert float(figures["ece_scaled"]["value"] or 1) < float(figures["ece"]["value"] or 0) / 2
    assert float(figures["nll_scaled"]["value"] or 9) < float(figures["nll"]["value"] or 0)


def test_one_image_has_no_other_half():
    figures = clean_figures(evaluation(1))
    assert figures["ece_scaled"] == {"value": None, "count": 1, "low": None, "high": None}
    assert figures["top1"]["count"] == 1


def test_the_details_add_up():
    told = evaluation()
    details = json.loads(json.dumps(clean_details(told)))
    wrong = round(300 * (1 - float(told.figures["top1"]["value"] or 0)))
    assert sum(pair["images"] for pair in details["confused"]) <= wrong
    assert all(len(pair["ids"]) == pair["images"] for pair in details["confused"])
    assert sum(each["count"] for each in details["classes"].values()) == 300
    right = sum(each["count"] * each["value"] for each in details["classes"].values())
    assert right == pytest.approx(300 - wrong)
    bins = [each for each in details["reliability"] if each["images"]]
    ece = sum(each["images"] * abs(each["confidence"] - each["top1"]) for each in bins) / 300
    logits, labels = torch.from_numpy(told.logits), torch.from_numpy(told.labels)
    assert ece == pytest.approx(expected_calibration_error(logits, labels), abs=1e-5)
    assert details["risk_coverage"]["risk"][-1] == pytest.approx(wrong / 300)
    assert np.all(np.diff(details["risk_coverage"]["coverage"]) > 0)

"""What a model is worth does not depend on how its images are batched."""

from __future__ import annotations

import pytest

from buttress.metrics.clean import clean_details, clean_figures
from buttress.metrics.evaluate import Evaluation
from buttress.metrics.score import Scoring, score
from buttress.models.load import LoadedModel
from buttress.runs.resolve import resolve_model
from buttress.sources import Source, Subset, open_source


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A small network with batch norm, of seed 0, that knows the ten digits."""
    from dataclasses import replace

    model = resolve_model("timm:test_resnet", num_classes=10, pretrained=False, seed=0)
    return replace(model, classes=tuple(map(str, range(10))), preprocessing=replace(model.preprocessing, size=32))


@pytest.fixture(scope="module")
def digits() -> Source:
    return Subset(open_source("digits"), range(53))  # no batch but of one or of all divides it


@pytest.fixture(scope="module")
def at_once(loaded: LoadedModel, digits: Source) -> Evaluation:
    return score(loaded, digits, Scoring(batch=53))


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (7, 0), (7, 2), (64, 0), (64, 2)])
def test_R28_every_batch_and_worker_count_gives_the_same_figures(loaded, digits, at_once, batch, workers) -> None:
    found = score(loaded, digits, Scoring(batch=batch, workers=workers))
    assert found.ids == at_once.ids
    once, again = clean_figures(at_once), clean_figures(found)
    assert {name: figure["count"] for name, figure in once.items()} == {name: f["count"] for name, f in again.items()}
    ties = set(clean_details(at_once)["ties"])
    other = {
        sample_id
        for sample_id, one, two in zip(found.ids, found.logits.argmax(1), at_once.logits.argmax(1), strict=True)
        if one != two
    }
    assert other <= ties
    for name in ("nll", "ece"):
        assert again[name]["value"] == pytest.approx(once[name]["value"], abs=1e-4)


def test_R28_ties_are_listed(at_once) -> None:
    assert clean_details(at_once)["ties"] == []
    tied = Evaluation(at_once.figures, at_once.logits * 0, at_once.labels, at_once.ids, at_once.classes)
    assert clean_details(tied)["ties"] == list(at_once.ids)

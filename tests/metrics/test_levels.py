"""An elastic run at each of its levels: figures of one pass, counts of the plain network, sizes as they are stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from buttress.metrics.clean import clean_figures, main_figures
from buttress.metrics.cost import measure
from buttress.metrics.cost.counts import state_bytes
from buttress.metrics.cost.measure import count_cost
from buttress.metrics.cost.variants import eager
from buttress.metrics.evaluate import Evaluation, figures_of
from buttress.metrics.levels import score_levels
from buttress.metrics.score import Scoring, score
from buttress.models.load import LoadedModel, load_model
from buttress.runs import Run
from buttress.sources import open_source
from buttress.weights.build import create_method, to_card
from buttress.weights.levels import Level
from buttress.weights.settings import SubspaceSettings

CLASSES = ("blue", "green", "red")


def loaded_model(name: str = "test_resnet", seed: int = 0) -> LoadedModel:
    loaded = load_model(f"timm:{name}", num_classes=3, seed=seed)
    return replace(loaded, classes=CLASSES, preprocessing=replace(loaded.preprocessing, size=32))


def make_run(folder: Path, *settings: SubspaceSettings) -> Run:
    """A run, untrained, whose corners lie far apart."""
    loaded = loaded_model()
    cards = [to_card(each) for each in settings]
    run = Run.of(folder, model=loaded, classes=CLASSES, settings={}, versions={}, data={}, methods=cards).create()
    for each in settings:
        create_method(each).prepare(loaded.module)
    for number, parameter in enumerate(loaded.module.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data += 0.2 * noise
    run.save_weights(loaded.module.state_dict())
    return run


def test_every_level_is_scored_once_the_default_first(tmp_path: Path, photos: Path) -> None:
    run, source, how = make_run(tmp_path / "run", SubspaceSettings()), open_source(f"folder:{photos}"), Scoring()
    default = run.load_model(measured=True)
    figures = main_figures(score(default, source, how))
    found = score_levels(run, source, how, default=default, figures=figures)
    assert [str(each.level) for each in found] == ["at=0.5", "at=0", "at=0.25", "at=0.75", "at=1"]
    for each in found:
        alone = run.load_model(each.level, measured=True)
        assert dict(each.figures) == main_figures(score(alone, source, how))
        assert each.counts == count_cost(alone)
        assert set(each.details()) == {"level", "figures", "parameters", "bytes", "macs"}
    assert len({each.figures["nll"]["value"] for each in found}) == 5
    plain = loaded_model()
    assert found[0].counts.bytes == default.stored_bytes is not None
    assert found[0].counts.parameters == sum(each.numel() for each in plain.module.parameters())
    tensors = plain.module.state_dict().values()
    assert count_cost(plain).bytes == sum(each.numel() * each.element_size() for each in tensors)


def test_a_run_without_levels_has_nothing_to_tell(tmp_path: Path, photos: Path) -> None:
    run, source = make_run(tmp_path / "run"), open_source(f"folder:{photos}")
    assert score_levels(run, source, Scoring(), default=run.load_model(), figures={}) == []


def test_stored_bytes_are_the_size_where_they_are_known(tmp_path: Path, photos: Path, monkeypatch) -> None:
    """A fake of a run of `keep` levels: the networks are alike and their sizes are not."""
    run, source = make_run(tmp_path / "run"), open_source(f"folder:{photos}")
    levels = tuple(Level.of("keep", keep) for keep in (1, 0.5, 0.1))
    plain = run.load_model()

    def at(_: Run, level: Level | None = None, *, measured: bool = False) -> LoadedModel:
        assert measured
        return replace(plain, stored_bytes=int(10_000 * (level or levels[0]).value))

    monkeypatch.setattr(Run, "levels", lambda _: levels)
    monkeypatch.setattr(Run, "load_model", at)
    figures = main_figures(score(plain, source, Scoring()))
    found = score_levels(run, source, Scoring(), default=at(run, measured=True), figures=figures)
    assert [(str(each.level), each.counts.bytes) for each in found] == [
        ("keep=1", 10_000),
        ("keep=0.5", 5_000),
        ("keep=0.1", 1_000),
    ]
    file = tmp_path / "run" / "model.safetensors"
    assert len({each.counts.macs for each in found}) == 1
    monkeypatch.setattr(measure, "VARIANTS", {"eager": eager})
    assert measure.measure_cost(at(run, levels[1], measured=True), weights_file=file, batch=1).bytes == 5_000


def test_main_figures_have_the_intervals_of_the_whole_list() -> None:
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)).numpy()
    labels = (torch.arange(40) % 7).numpy()
    ids = tuple(f"{number}.png" for number in range(40))
    evaluation = Evaluation(figures_of(logits, labels), logits, labels, ids, tuple("abcdefg"))
    found, whole = main_figures(evaluation), clean_figures(evaluation)
    assert set(found) == {"top1", "top5", "nll", "ece"}
    assert found == {key: whole[key] for key in found}
    assert found["ece"]["low"] is not None and found["nll"]["high"] is not None


def test_state_bytes_are_those_of_the_file_but_for_its_header_and_count_shared_tensors_once() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    assert state_bytes(net) == 4 * (9 + 9 + 4 * 3) + 8
    net[1].weight = net[0].weight
    assert state_bytes(net) == 4 * (9 + 4 * 3) + 8


def test_a_network_that_nobody_can_count_has_no_multiply_accumulates() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(32, 3, batch_first=True)

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.lstm(images_BCHW.mean(1))[0]
            return states[:, -1]

    found = count_cost(replace(loaded_model(), module=Recurrent()))
    assert found.macs is None
    assert found.parameters == 4 * 3 * (32 + 3 + 2)

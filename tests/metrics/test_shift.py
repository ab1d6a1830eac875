"""Shift consistency: a model that cannot change, one that always does, and crops that repair it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from buttress.metrics.crops import Canvas, chosen_crop, chosen_turn, middle_crop
from buttress.metrics.score import Scoring, evaluation_loader, score
from buttress.metrics.shift import score_shifted
from buttress.models.load import LoadedModel
from buttress.models.preprocessing import Preprocessing
from buttress.sources import ArraySource

SIDE = 32
LOOK = Preprocessing(size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bicubic", crop_pct=0.6)


def photos(classes: int = 2, count: int = 12, side: int = 64) -> ArraySource:
    """Noise that is smooth over some pixels, in other colours each."""
    generator = np.random.default_rng(0)
    coarse = generator.random((count, side // 4, side // 4, 3)) * 255
    return ArraySource(
        coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8), [0] * count, classes=tuple("abcdefgh"[:classes])
    )


class MeanColour(nn.Module):
    """Of what does not change when pixels move in a circle."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]))

    def forward(self, images: Tensor) -> Tensor:
        return (images.double().mean(dim=(2, 3)) @ self.weight.double().T).round(decimals=9)


class Places(nn.Module):
    """Eight classes by a random projection of all pixels: each move changes much."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, 3 * SIDE * SIDE, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return (flat - flat.mean(dim=1, keepdim=True)) @ self.weight.T


def loaded(module: nn.Module, classes: int) -> LoadedModel:
    return LoadedModel(
        module=module,
        preprocessing=LOOK,
        classes=None,
        uri="timm:none",
        weights_sha256=None,
        licence=None,
        pretrained=False,
        name="none",
        kwargs={"num_classes": classes},
    )


def shares(module: nn.Module, classes: int, **options: Any) -> tuple[float, float]:
    figures = score_shifted(loaded(module, classes), photos(classes), Scoring(**options)).figures()
    assert figures["shift_camera"]["count"] == 12
    return tuple(float(figures[name]["value"] or 0) for name in ("shift_camera", "shift_cyclic"))  # type: ignore[return-value]


def test_an_invariant_model_never_changes_its_mind():
    assert shares(MeanColour(), 2)[1] == 0


def test_a_model_of_places_changes_and_crops_by_content_repair_it():
    camera, cyclic = shares(Places(), 8)
    assert min(camera, cyclic) > 0.2
    repaired_camera, repaired_cyclic = shares(Places(), 8, consistent=True)
    assert repaired_cyclic == 0
    assert repaired_camera < camera / 2


def test_scores_may_be_of_chosen_crops():
    middle, chosen = (score(loaded(Places(), 8), photos(8), Scoring(consistent=which)) for which in (False, True))
    assert middle.figures["top1"]["count"] == chosen.figures["top1"]["count"] == 12
    assert not np.array_equal(middle.logits, chosen.logits)


def test_the_batch_changes_nothing():
    assert shares(Places(), 8, batch=5) == shares(Places(), 8)


def test_a_canvas_holds_the_models_own_look_in_its_middle():
    canvas = Canvas.of(LOOK)
    assert canvas.side == canvas.room + 2
    (own,) = evaluation_loader(LOOK, photos(), batch=12)
    (wide,) = canvas.loader(photos(), batch=12, workers=0, max_bad=0.0)
    for look, photo in zip(
        own.images.permute(0, 2, 3, 1).numpy(), wide.images.permute(0, 2, 3, 1).numpy(), strict=True
    ):
        middle = middle_crop(SIDE)(canvas.at(photo, 0, 0))
        assert middle.shape == look.shape
        assert np.abs(middle[2:-2, 2:-2].astype(int) - look[2:-2, 2:-2]).mean() < 12  # half a pixel apart at the most


@pytest.mark.parametrize("size", [8, 32, 224])
def test_a_model_that_sees_the_whole_image_gets_room_to_move(size):
    canvas = Canvas.of(Preprocessing(size=size, mean=(0,) * 3, std=(1,) * 3, interpolation="bicubic", crop_pct=1.0))
    assert canvas.room >= size + 2


def test_a_chosen_crop_moves_with_the_content():
    generator = np.random.default_rng(1)
    scene = generator.integers(0, 255, (80, 80, 3)).astype(np.uint8)
    one, other = chosen_crop(SIDE)(scene[5:65, 7:67]), chosen_crop(SIDE)(scene[6:66, 6:66])
    assert np.array_equal(one, other)


def test_a_chosen_turn_is_the_same_for_every_turn():
    generator = np.random.default_rng(2)
    image = generator.integers(0, 255, (20, 20, 3)).astype(np.uint8)
    expected = chosen_turn(image)
    for turn in ((1, 0), (0, -3), (11, 7)):
        assert np.array_equal(chosen_turn(np.roll(image, turn, axis=(0, 1))), expected)

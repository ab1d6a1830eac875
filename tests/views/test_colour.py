import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import InterpolationMode

from buttress.views.colour import apply_colour

from .pictures import noise, probe_image, smooth

OPS = [
    ("Brightness", 0.27),
    ("Brightness", -0.9),
    ("Color", 0.27),
    ("Color", -0.9),
    ("Contrast", 0.9),
    ("Contrast", -0.27),
    ("Sharpness", 0.27),
    ("Sharpness", -0.9),
    ("Posterize", 7.0),
    ("Posterize", 4.0),
    ("Solarize", 178.5),
    ("Solarize", 0.0),
    ("AutoContrast", 0.0),
    ("Equalize", 0.0),
    ("Identity", 0.0),
]
PICTURES = {
    "made": probe_image(),
    "noise": noise(40, 50),
    "narrow range": noise(40, 50) // 3 + 60,
    "smooth": smooth(64, 64),
    "one colour": np.full((20, 20, 3), (10, 200, 90), np.uint8),
    "two columns": noise(9, 2),
    "one pixel": noise(1, 1),
}


def torchvisions(image_HWC, name, value):
    image_CHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)
    return _apply_op(image_CHW, name, value, InterpolationMode.NEAREST, None).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("op", OPS, ids=str)
def test_agrees_with_torchvision(op, picture):
    image = PICTURES[picture]
    ours = apply_colour(image.copy(), [op])
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - torchvisions(image, *op)).max() <= 2


@given(st.lists(st.sampled_from(OPS), max_size=4), st.sampled_from(["made", "noise", "narrow range"]))
def test_composed_tables_give_what_one_op_after_another_gives(ops, picture):
    composed = apply_colour(PICTURES[picture].copy(), ops)
    stepwise = PICTURES[picture].copy()
    for op in ops:
        stepwise = apply_colour(stepwise.copy(), [op])
    assert np.array_equal(composed, stepwise)


def test_ops_act_in_their_order():
    ops = [("Posterize", 4.0), ("Brightness", 0.27)]
    image = PICTURES["noise"]
    assert not np.array_equal(apply_colour(image.copy(), ops), apply_colour(image.copy(), ops[::-1]))


def test_geometric_ops_are_passed_over():
    image = PICTURES["made"]
    assert np.array_equal(apply_colour(image.copy(), [("Rotate", 30.0)]), image)

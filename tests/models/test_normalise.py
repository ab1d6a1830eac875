import pytest
import torch

from buttress.models.normalise import normalise
from buttress.models.preprocessing import Preprocessing


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_it_is_the_formula_in_the_layout_that_came_in(layout):
    preprocessing = Preprocessing(
        size=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), interpolation="bilinear", crop_pct=1.0
    )
    images_BCHW = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8).contiguous(memory_format=layout)
    before = images_BCHW.clone()
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    result = normalise(images_BCHW, preprocessing)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=layout)
    torch.testing.assert_close(result, (images_BCHW / 255 - mean) / std)
    assert torch.equal(images_BCHW, before)


def test_its_small_tensors_are_made_once(monkeypatch):
    """Also where the first images come in inference mode, as in an evaluation, and the next are trained on."""
    preprocessing = Preprocessing(
        size=4, mean=(0.41, 0.5, 0.6), std=(0.2, 0.3, 0.4), interpolation="bilinear", crop_pct=1.0
    )
    images_BCHW = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        first = normalise(images_BCHW, preprocessing).clone()

    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(torch, "tensor", refuse)
    again = normalise(images_BCHW, preprocessing)
    assert torch.equal(first, again)
    assert not again.is_inference()
    mixed = torch.nn.Conv2d(3, 1, 1)(again).sum()
    torch.autograd.backward(mixed)

"""Views of a tiled JPEG, of which the crop alone is decoded, are those of the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from tests.sources.test_tiles import jpeg, picture

from buttress.sources.decode import decode
from buttress.sources.tiles import Tiles, with_index
from buttress.views import render
from buttress.views.policy import Policy, RandomCrop
from buttress.views.presets import eval_policy, preset
from buttress.views.render import Renderer

TILED = [with_index(jpeg(picture(width, height, 7), 4)) for width, height in ((310, 200), (64, 300), (50, 31))]
PLAIN = [jpeg(picture(width, height, 7), 4) for width, height in ((310, 200), (64, 300), (50, 31))]


@pytest.mark.parametrize("policy", [preset("crop"), preset("randaug"), preset("mix+randaug"), preset("small")])
@pytest.mark.parametrize("size", [24, (17, 40), 160])
def test_views_are_the_same_to_the_bit(
    policy: Policy, size: int | tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(policy, seed=3, rows=len(TILED))
    asked = []

    def counted(data):
        asked.append(1)
        return decode(data)

    monkeypatch.setattr(render, "decode", counted)
    tiled, plain = (lambda row, images=images: (images[row], row) for images in (TILED, PLAIN))
    for row in range(len(TILED)):
        for view in range(8):
            asked.clear()
            one = renderer.views(*tiled(row), [view], size, tiled)
            assert not asked, "the whole image was decoded"
            np.testing.assert_array_equal(one, renderer.views(*plain(row), [view], size, plain))


def test_several_views_are_drawn_from_one_decode_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(preset("crop"), seed=3)
    monkeypatch.setattr(Tiles, "of", lambda data: pytest.fail("one region after the other"))
    views = renderer.views(TILED[0], 5, [0, 1, 2], 32)
    monkeypatch.undo()
    for view, drawn in enumerate(views):
        np.testing.assert_array_equal(renderer.views(TILED[0], 5, [view], 32)[0], drawn)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "area"])
def test_evaluation_decodes_the_whole_for_its_filters_reach_beyond_the_box(
    kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(eval_policy(24, 0.5, kind), seed=0)
    expected = renderer.views(PLAIN[0], 1, [0], 24)
    monkeypatch.setattr(Tiles, "pixels", lambda *_: pytest.fail("a region alone"))
    np.testing.assert_array_equal(renderer.views(TILED[0], 1, [0], 24), expected)


def test_boxes_that_leave_the_image_are_black_there() -> None:
    renderer = Renderer(Policy((RandomCrop(padding=0.2),)), seed=1)
    tiled, plain = (
        np.stack([renderer.views(images[0], 9, [view], 40)[0] for view in range(6)]) for images in (TILED, PLAIN)
    )
    np.testing.assert_array_equal(tiled, plain)
    assert (tiled == 0).all(axis=-1).any()

from hashlib import sha256

import numpy as np
import pytest

from buttress.errors import StoreError
from buttress.store.probes import probes_bytes
from buttress.views.presets import PRESETS, preset
from buttress.views.probes import PROBE_ID_HASH, PROBES, compare_probes, probe_image, probe_picture, probe_views
from buttress.views.render import Renderer

# Integer arithmetic: the same bytes everywhere.
PICTURE = "a296b5e304c5401eefbc7f0b04dfeef0b25d2dc9ca7680ea85ac76c2eb03f68e"


def test_the_made_picture_is_the_same_everywhere():
    assert sha256(probe_image().tobytes()).hexdigest() == PICTURE
    assert probe_image().std() > 60


def test_probe_views_are_views_0_to_15():
    fresh = probe_views(preset("randaug"), 4)
    assert fresh.shape == (16, 64, 64, 3)
    assert fresh.dtype == np.uint8
    assert np.array_equal(fresh, probe_views(preset("randaug"), 4))
    assert compare_probes(fresh, fresh) == 0.0


def test_probe_views_of_a_policy_that_mixes_are_mixed_with_one_another():
    renderer, fresh = Renderer(preset("mix"), 4, PROBES), probe_views(preset("mix"), 4)
    mixes = [renderer.mix(PROBE_ID_HASH, view) for view in range(16)]
    partners = {mix.partner for mix in mixes if mix is not None}
    assert {None, 0} < {mix and mix.partner for mix in mixes}
    assert len(partners) > 4
    alone = probe_views(preset("mix").unmixed, 4)
    same = [np.array_equal(one, other) for one, other in zip(fresh, alone, strict=True)]
    assert same == [mix is None or mix.partner == 0 for mix in mixes]  # row 0 is the image itself
    assert np.array_equal(probe_picture(0)[0], probe_image())
    assert len({np.asarray(probe_picture(row)[0]).tobytes() for row in range(16)}) == 16


@pytest.mark.parametrize("name", PRESETS)
def test_packed_probes_stay_small(name):
    assert len(probes_bytes(probe_views(preset(name), 4))) < 64 * 1024


def test_another_seed_or_policy_is_far_away():
    fresh = probe_views(preset("randaug"), 4)
    assert compare_probes(fresh, probe_views(preset("randaug"), 5)) > 20
    assert compare_probes(fresh, probe_views(preset("crop"), 4)) > 5


def test_a_change_of_the_renderer_shows(monkeypatch):
    fresh = probe_views(preset("crop"), 4)
    view_into = Renderer.view_into

    def one_pixel_off(self, image_HWC, *rest):
        view_into(self, np.roll(image_HWC, 1, axis=1), *rest)

    monkeypatch.setattr(Renderer, "view_into", one_pixel_off)
    assert compare_probes(fresh, probe_views(preset("crop"), 4)) > 2


def test_the_difference_is_in_grey_levels():
    stored = np.full((16, 64, 64, 3), 250, np.uint8)
    assert compare_probes(stored, stored - 250) == 250.0


def test_probes_of_another_shape_are_refused():
    fresh = probe_views(preset("crop"), 4)
    with pytest.raises(StoreError, match="probe views"):
        compare_probes(fresh[:8], fresh)
    with pytest.raises(StoreError, match="probe views"):
        compare_probes(fresh.astype(np.float32), fresh)

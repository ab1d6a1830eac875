"""Golden vectors: a change of any of them is a change of format (POLICY_VERSION, RENDERER_VERSION)."""

import json

import numpy as np
import pytest

from buttress.sources.identity import id_hash
from buttress.views.draw import Drawer, draw
from buttress.views.keys import words
from buttress.views.policy import Policy
from buttress.views.probes import PROBES, probe_picture
from buttress.views.render import Renderer

from .golden import GOLDEN
from .philox import philox_block


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


def test_words(golden):
    assert {256 * number for number in range(1, 10)} <= {vector["slot"] for vector in golden["words"]}
    for vector in golden["words"]:
        seed, view, id_ = (int(vector[key], 16) for key in ("seed", "view", "id"))
        expected = [int(word, 16) for word in vector["words"]]
        assert words(seed, view, id_, vector["slot"], 5).tolist() == expected
        block_0 = [int(word, 16) for word in vector["block_0"]]
        assert list(philox_block((0, vector["slot"], view, id_), (seed, 0))) == block_0
        assert block_0 != expected[:4]
        assert list(philox_block((1, vector["slot"], view, id_), (seed, 0))) == expected[:4]


def test_draws_are_equal_to_the_last_bit(golden):
    assert len(golden["draws"]) == 72
    for vector in golden["draws"]:
        assert hex(id_hash(vector["sample"])) == vector["id"]
        policy = Policy.from_json(golden["policies"][vector["policy"]])
        name = vector["seed"], int(vector["id"], 16), vector["view"], tuple(vector["image_size"])
        drawn = draw(policy, *name, vector.get("rows"))
        assert drawn.to_json() == vector["parameters"]


def test_mixes_are_equal_to_the_last_bit(golden):
    kinds = set()
    for vector in golden["mixes"]:
        policy = Policy.from_json(golden["policies"]["mix"])
        mix = Drawer(policy, vector["seed"], vector["rows"]).mix(int(vector["id"], 16), vector["view"])
        assert (None if mix is None else mix.to_json()) == vector["mix"]
        kinds.add(None if mix is None else (mix.mixup < 1, mix.cutmix is not None))
    assert kinds == {None, (True, False), (False, True), (True, True)}


def test_pixels_are_within_two_levels(golden):
    assert len(golden["pixels"]) == 48
    for vector in golden["pixels"]:
        policy = Policy.from_json(golden["policies"][vector["policy"]])
        renderer = Renderer(policy, vector["seed"], PROBES)
        fresh = renderer.views(*probe_picture(0), [vector["view"]], 16, probe_picture)[0]
        stored = np.frombuffer(bytes.fromhex(vector["rgb_16x16"]), np.uint8).reshape(16, 16, 3)
        assert np.abs(fresh.astype(int) - stored).mean() <= 2.0, vector["policy"]

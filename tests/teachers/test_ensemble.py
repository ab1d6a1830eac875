"""Several teachers as one: the weighted mean of what each says of the very same views at its own size."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest

from buttress.errors import ModelError, SettingsError
from buttress.models.load import load_model
from buttress.runs import Run
from buttress.teachers import EnsembleSpec, TeacherSpec

MODULE = """
import numpy as np

def light(views):
    assert views.shape[1:] == (8, 8, 3)
    share = views.reshape(len(views), -1).mean(axis=1) / 255
    return np.stack([share, 1 - share], axis=1)
light.size, light.classes = 8, ("light", "dark")

def third(views):
    assert views.shape[1:] == (4, 4, 3)
    return np.tile([[0.25, 0.25, 0.5]], (len(views), 1))
third.size, third.classes = 4, ("light", "other", "dark")

def nameless(views): return np.full((len(views), 2), 0.5)
nameless.size = 8

def wide(views): return np.full((len(views), 4), 0.25)
wide.size = 8
"""
RANDOM = np.random.default_rng(3)
VIEWS = {size: RANDOM.integers(0, 256, (5, size, size, 3), dtype=np.uint8) for size in (4, 8, 64)}
CLASSES = ("light", "dark")


@pytest.fixture
def member(tmp_path, monkeypatch):
    """Make the spec of a teacher of a module that only this test has; each in a file of its own unless told so."""
    monkeypatch.syspath_prepend(tmp_path)
    stem = f"board_{tmp_path.name}".replace("-", "_")

    def make(name, file="", **settings):
        module = f"{stem}_{file or name}"
        (tmp_path / f"{module}.py").write_text(f"{MODULE}\nfile = {file or name!r}\n")
        return TeacherSpec(uri=f"python:{module}:{name}", **{"source_classes": CLASSES, **settings})

    return make


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small run of the two classes."""
    model = load_model("timm:test_resnet", num_classes=2, seed=1)
    made = Run.of(
        tmp_path_factory.mktemp("runs") / "a", model=model, classes=CLASSES, settings={}, versions={}, data={}
    ).create()
    made.save_weights(model.module.state_dict())
    return made.path


def test_weights_are_shares_and_only_their_ratios_count(member):
    members = (member("light"), member("third"), member("nameless"))
    assert EnsembleSpec(members=members).shares == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert EnsembleSpec(members=members, weights=(2, 1, 1)).shares == (0.5, 0.25, 0.25)
    assert EnsembleSpec(members=members, weights=(1e308, 5e307, 5e307)).shares == (0.5, 0.25, 0.25)


@pytest.mark.parametrize(
    "weights", [(1.0,), (1.0, 2.0, 3.0), (0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (float("inf"), 1.0)]
)
def test_weights_that_are_none_are_refused(member, weights):
    with pytest.raises(SettingsError, match="--teacher-weights"):
        EnsembleSpec(members=(member("light"), member("third")), weights=weights)
    with pytest.raises(SettingsError, match="at least one"):
        EnsembleSpec(members=())


def test_it_is_the_weighted_mean_after_each_members_own_class_map(member):
    opened = EnsembleSpec(members=(member("light"), member("third")), weights=(3.0, 1.0)).open()
    assert opened.sizes == (8, 4)
    assert opened.classes == CLASSES
    share = VIEWS[8].reshape(5, -1).mean(axis=1) / 255
    own, cut = np.stack([share, 1 - share], 1), np.tile([[1 / 3, 2 / 3]], (5, 1))
    probabilities = opened.probabilities(VIEWS)
    np.testing.assert_allclose(probabilities, 0.75 * own + 0.25 * cut, rtol=1e-6)
    assert probabilities.dtype == np.float32
    assert opened.unmapped_share == pytest.approx(0.25 * 0.25)
    assert [said["weight"] for said in opened.describe()] == [0.75, 0.25]
    assert [said["size"] for said in opened.describe()] == [8, 4]


def test_functions_and_networks_mix_each_with_its_own_preprocessing(member, run):
    network = TeacherSpec(uri=f"run:{run}", size=64, precision="fp32", source_classes=CLASSES)
    opened = EnsembleSpec(members=(network, member("light"))).open()
    assert opened.sizes == (64, 8)
    alone = [network.open().probabilities(VIEWS[64]), member("light").open().probabilities(VIEWS[8])]
    np.testing.assert_allclose(opened.probabilities(VIEWS), np.mean(alone, axis=0), rtol=1e-6)


def test_one_member_alone_is_that_teacher(member):
    spec = member("light")
    opened = EnsembleSpec.of(spec).open()
    assert opened.probabilities(VIEWS).tobytes() == spec.open().probabilities(VIEWS[8]).tobytes()
    assert opened.describe() == ({**spec.open().describe(), "uri": spec.uri},)
    assert EnsembleSpec.of(opened.spec) is opened.spec


def test_its_spec_opens_it_again_elsewhere(member):
    opened = EnsembleSpec(members=(member("light"), member("third")), weights=(1.0, 2.0)).with_threads(1).open()
    again = pickle.loads(pickle.dumps(opened.spec)).open()
    assert again.describe() == opened.describe()
    assert again.probabilities(VIEWS).tobytes() == opened.probabilities(VIEWS).tobytes()


def test_the_same_weights_twice_are_no_ensemble(member, run, tmp_path):
    shutil.copytree(run, tmp_path / "b")
    one, other = (TeacherSpec(uri=f"run:{path}", size=64, source_classes=CLASSES) for path in (run, tmp_path / "b"))
    with pytest.raises(ModelError, match=r"are the same teacher \(equal weights_sha256\).*--teacher-weights"):
        EnsembleSpec(members=(one, other)).open()
    with pytest.raises(ModelError, match=r"light and .*:light are the same teacher"):
        EnsembleSpec(members=(member("light"), member("light"))).open()


def test_two_functions_of_one_file_are_doubted(member):
    opened = EnsembleSpec(members=(member("light", file="both"), member("third", file="both"))).open()
    (doubt,) = opened.doubts
    assert "come from one file" in doubt
    assert EnsembleSpec(members=(member("light"), member("third"))).open().doubts == []


@pytest.mark.parametrize(
    "name", ["ig_resnext101_32x8d", "ig_resnext101_32x16d", "ig_resnext101_32x32d", "ig_resnext101_32x48d"]
)
def test_old_names_that_timm_maps_to_one_model_are_refused(name):
    with pytest.raises(ModelError, match="an old name that timm maps to"):
        EnsembleSpec(members=(TeacherSpec(uri=f"timm:{name}"),)).open()


def test_members_must_end_in_the_same_classes(member):
    kept = {"classes": "teacher", "source_classes": None}
    with pytest.raises(ModelError, match=r"third: ends in other classes than .*light \(3 against 2, e.g. 'other'\)"):
        EnsembleSpec(members=(member("light", **kept), member("third", **kept))).open()
    with pytest.raises(ModelError, match="nameless does not name its classes"):
        EnsembleSpec(members=(member("nameless", **kept), member("light", **kept))).open()
    with pytest.raises(ModelError, match=r"wide: gives 4 classes, .*nameless 2"):
        EnsembleSpec(members=(member("nameless", **kept), member("wide", **kept))).open().probabilities(VIEWS)
    reordered = member("third", source_classes=("dark", "light"))
    with pytest.raises(ModelError, match=r"third: ends in other classes .*in another order"):
        EnsembleSpec(members=(member("light"), reordered)).open()

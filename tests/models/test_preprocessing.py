import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.errors import ModelError
from buttress.models.preprocessing import Preprocessing

PLAIN = Preprocessing(
    size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear", crop_pct=0.875
)
unit = st.floats(0, 1)
positive = st.floats(1e-6, 10)
any_preprocessing = st.builds(
    Preprocessing,
    size=st.integers(1, 1024),
    mean=st.tuples(unit, unit, unit),
    std=st.tuples(positive, positive, positive),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    crop_pct=positive,
)


@given(any_preprocessing)
def test_json_and_metadata_give_it_back_exactly(preprocessing):
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json())), "x") == preprocessing
    assert Preprocessing.from_metadata(preprocessing.to_metadata(), PLAIN, "x") == preprocessing


def test_metadata_overrides_only_what_it_says():
    read = Preprocessing.from_metadata({"mean": "0.5,0.5,0.5", "input_size": "3,160,160"}, PLAIN, "x")
    assert (read.mean, read.size, read.std, read.crop_pct) == ((0.5, 0.5, 0.5), 160, PLAIN.std, PLAIN.crop_pct)


@pytest.mark.parametrize("bad", [{"mean": "0.5,0.5"}, {"std": "a,b,c"}, {"input_size": "large"}, {"crop_pct": "x"}])
def test_unreadable_metadata_names_the_file(bad):
    with pytest.raises(ModelError, match=r"w\.safetensors"):
        Preprocessing.from_metadata(bad, PLAIN, "w.safetensors")


@pytest.mark.parametrize(
    "bad", [{"std": (0.2, 0.0, 0.2)}, {"mean": (float("nan"), 0.0, 0.0)}, {"size": 0}, {"crop_pct": 0.0}]
)
def test_impossible_values_are_refused(bad):
    with pytest.raises(ModelError):
        Preprocessing(**{**{name: getattr(PLAIN, name) for name in Preprocessing.__dataclass_fields__}, **bad})


@pytest.mark.parametrize("bad", [None, {}, {**PLAIN.to_json(), "extra": 1}, {**PLAIN.to_json(), "mean": [1, 2]}])
def test_malformed_json_is_refused(bad):
    with pytest.raises(ModelError, match=r"run\.json"):
        Preprocessing.from_json(bad, "run.json")


def test_a_model_that_does_not_take_rgb_is_refused():
    with pytest.raises(ModelError, match="RGB"):
        Preprocessing.from_timm({"input_size": (1, 28, 28)})

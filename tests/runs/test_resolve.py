import pytest
import torch

from buttress.errors import ModelError
from buttress.models.load import load_model
from buttress.runs import Run
from buttress.runs.resolve import resolve_model


@pytest.fixture
def folder(tmp_path):
    model = load_model("timm:test_resnet", num_classes=3, seed=1)
    run = Run.of(tmp_path / "run", model=model, classes="abc", settings={}, versions={}, data={}).create()
    run.save_weights(model.module.state_dict())
    return run.path


def test_a_run_is_found_with_and_without_its_scheme(folder):
    for uri in (f"run:{folder}", str(folder)):
        loaded = resolve_model(uri)
        assert (loaded.name, loaded.classes) == ("test_resnet", ("a", "b", "c"))


def test_a_run_gets_a_new_head_for_other_classes(folder):
    loaded = resolve_model(f"run:{folder}", num_classes=5)
    assert loaded.module(torch.rand(2, 3, 64, 64)).shape == (2, 5)
    assert (loaded.num_classes, loaded.classes) == (5, None)


def test_timm_goes_through():
    assert resolve_model("timm:test_resnet", num_classes=4, seed=0).num_classes == 4


def test_a_function_is_no_network():
    with pytest.raises(ModelError, match="can teach but not be trained"):
        resolve_model("python:a:b")

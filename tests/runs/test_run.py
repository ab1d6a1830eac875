import json

import pytest
import torch

from buttress.errors import ModelError, TrainingError
from buttress.models.load import at_size, load_model
from buttress.runs import Run, open_run

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def model():
    return at_size(load_model("timm:test_vit", num_classes=3, seed=1), 64)


@pytest.fixture
def run(tmp_path, model):
    return Run.of(
        tmp_path / "run",
        model=model,
        classes=CLASSES,
        settings={"epochs": 3, "optimizer": {"lr": 0.1}},
        versions={"torch": "2"},
        data={"uri": "folder:photos", "fingerprint": "ab"},
        reinforcement="cd",
    ).create()


def change(run, **changes):
    """Rewrite run.json with other values."""
    file = run.path / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_run_is_read_back_as_it_was_written(run, model):
    run.save_weights(model.module.state_dict())
    assert open_run(run.path) == run
    loaded = open_run(str(run.path)).load_model()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded.module.eval()(images), model.module.eval()(images))
    assert (loaded.classes, loaded.preprocessing, loaded.pretrained) == (CLASSES, model.preprocessing, True)


def test_its_weights_also_serve_as_a_local_file(run, model):
    run.save_weights(model.module.state_dict())
    loaded = load_model(f"timm:test_vit@{run.path / 'model.safetensors'}")
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded.module.eval()(images), model.module.eval()(images))
    assert (loaded.classes, loaded.preprocessing) == (CLASSES, model.preprocessing)
    assert loaded.weights_sha256 == run.load_model().weights_sha256


def test_equal_weights_give_an_equal_file(run, model):
    run.save_weights(model.module.state_dict())
    first = (run.path / "model.safetensors").read_bytes()
    run.save_weights(model.module.state_dict())
    assert (run.path / "model.safetensors").read_bytes() == first


def test_an_unfinished_run_opens_only_to_be_resumed(run):
    with pytest.raises(ModelError, match=r"unfinished run.*--resume"):
        open_run(run.path)
    with pytest.raises(ModelError, match="unfinished run"):
        run.load_model()
    assert open_run(run.path, finished=False) == run


def test_what_is_no_run_folder_says_so(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        open_run(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"no run\.json in it"):
        open_run(tmp_path)


def test_a_run_is_never_overwritten(run, model):
    with pytest.raises(TrainingError, match="holds a run already"):
        Run.of(run.path, model=model, classes=CLASSES, settings={}, versions={}, data={}).create()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, model):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot make the run folder"):
        Run.of(tmp_path / "file" / "run", model=model, classes=CLASSES, settings={}, versions={}, data={}).create()


def test_classes_must_be_as_many_as_outputs(tmp_path, model):
    with pytest.raises(ModelError, match="2 classes for a model of 3 outputs"):
        Run.of(tmp_path / "run", model=model, classes=CLASSES[:2], settings={}, versions={}, data={}).create()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "update Buttress"),
        ({"format": "other"}, "not the run.json of a Buttress run"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"settings": []}, "'settings'"),
        ({"model": {"name": "test_vit"}}, "'model'"),
        ({"preprocessing": {}}, "preprocessing"),
    ],
)
def test_a_card_that_is_not_ours_is_refused(run, changes, says):
    change(run, **changes)
    with pytest.raises(ModelError, match=says) as failure:
        open_run(run.path, finished=False)
    assert str(run.path) in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_card_cannot_make_timm_load_another_file(run, model):
    run.save_weights(model.module.state_dict())
    change(run, model={"name": "test_vit", "kwargs": {"num_classes": 3, "checkpoint_path": "evil.pth"}})
    with pytest.raises(ModelError, match="checkpoint_path"):
        open_run(run.path).load_model()


def test_a_damaged_weights_file_is_one_line(run, model):
    run.save_weights(model.module.state_dict())
    file = run.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        open_run(run.path).load_model()


def test_metrics_come_back_in_order_and_a_repeated_epoch_counts_last(run):
    assert run.read_metrics() == []
    for epoch, loss in ((0, 3.0), (1, 2.0), (1, 1.5), (2, 1.0)):
        run.append_metrics({"epoch": epoch, "loss": loss})
    assert [line["loss"] for line in run.read_metrics()] == [3.0, 1.5, 1.0]


def test_a_line_torn_by_a_crash_is_ignored_and_then_dropped(run):
    run.append_metrics({"epoch": 0, "loss": 3.0})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "lo')
    assert [line["epoch"] for line in run.read_metrics()] == [0]
    run.append_metrics({"epoch": 1, "loss": 2.0})
    assert [line["epoch"] for line in run.read_metrics()] == [0, 1]


def test_a_diverged_training_says_so(run):
    with pytest.raises(TrainingError, match="diverged"):
        run.append_metrics({"epoch": 0, "loss": float("nan")})


def test_foreign_metrics_name_the_line(run):
    (run.path / "metrics.jsonl").write_text('{"epoch": 0}\nnonsense\n')
    with pytest.raises(ModelError, match="line 2"):
        run.read_metrics()

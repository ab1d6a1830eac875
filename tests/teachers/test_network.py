import json
import multiprocessing

import numpy as np
import pytest
import torch

from buttress.errors import ModelError
from buttress.models.load import load_model
from buttress.models.normalise import normalise
from buttress.runs import Run
from buttress.teachers import TeacherSpec, open_teacher
from buttress.teachers.network import choose_precision

CLASSES = ("ant", "bee", "cat", "dog")
RANDOM = np.random.default_rng(0)
# Coarse blocks of colour: to a network they differ more from one another than noise does.
VIEWS = RANDOM.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The URI of a run whose small network gives every view another answer: its logits have mean 0 and spread 2."""
    model = load_model("timm:test_resnet", num_classes=4, seed=1)
    head = model.module.get_submodule("fc")
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        logits_BC = model.module.eval()(normalise(torch.from_numpy(VIEWS).permute(0, 3, 1, 2), model.preprocessing))
        scale = 2 / logits_BC.std(dim=0)
        head.bias.sub_(logits_BC.mean(dim=0)).mul_(scale)
        head.weight.mul_(scale[:, None])
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    made = Run.of(folder, model=model, classes=CLASSES, settings={}, versions={}, data={}).create()
    made.save_weights(model.module.state_dict())
    return f"run:{folder}"


def plain(uri, temperature=1.0):
    """The same probabilities by the plainest code."""
    model = load_model(f"timm:test_resnet@{uri.removeprefix('run:')}/model.safetensors")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    images = (torch.from_numpy(VIEWS).permute(0, 3, 1, 2).contiguous() / 255 - mean) / std
    with torch.no_grad():
        return (model.module.eval()(images) / temperature).softmax(dim=1).numpy()


def test_it_gives_the_networks_softmax(run):
    teacher = open_teacher(run, size=64, precision="fp32", source_classes=CLASSES)
    probabilities_BC = teacher.probabilities(VIEWS)
    np.testing.assert_allclose(probabilities_BC, plain(run), atol=2e-4)
    assert np.ptp(probabilities_BC, axis=0).min() > 0.2
    assert probabilities_BC.dtype == np.float32
    assert (teacher.size, teacher.classes) == (64, CLASSES)


def test_temperature_divides_the_logits(run):
    teacher = open_teacher(run, size=64, precision="fp32", temperature=4.0)
    np.testing.assert_allclose(teacher.probabilities(VIEWS), plain(run, 4.0), atol=2e-4)


def test_bf16_is_near_float32(run):
    teacher = open_teacher(run, size=64, precision="bf16")
    assert teacher.spec.precision == "bf16"
    difference = np.abs(teacher.probabilities(VIEWS) - plain(run)).max()
    assert 1e-5 < difference < 0.1


def test_the_same_batch_gives_the_same_bytes_and_a_row_is_its_own(run):
    teacher = open_teacher(run, size=64, precision="fp32")
    whole = teacher.probabilities(VIEWS)
    assert teacher.probabilities(VIEWS.copy()).tobytes() == whole.tobytes()
    np.testing.assert_allclose(teacher.probabilities(VIEWS[2:3]), whole[2:3], atol=1e-4)


def test_a_read_only_batch_is_taken_and_left_as_it_is(run):
    views = VIEWS.copy()
    views.flags.writeable = False
    teacher = open_teacher(run, size=64, precision="fp32")
    np.testing.assert_array_equal(teacher.probabilities(views), teacher.probabilities(VIEWS))


def test_the_cut_to_some_classes_is_renormalised_and_its_share_told(run):
    teacher = open_teacher(run, size=64, precision="fp32", source_classes=("dog", "ant"))
    whole = plain(run)
    kept = whole[:, [3, 0]]
    np.testing.assert_allclose(teacher.probabilities(VIEWS), kept / kept.sum(axis=1, keepdims=True), atol=1e-3)
    assert teacher.unmapped_share == pytest.approx(1 - kept.sum(axis=1).mean(), abs=1e-3)
    assert teacher.describe()["class_map"] == {"dog": ["dog"], "ant": ["ant"]}


def test_a_class_it_does_not_know_is_an_error_and_its_own_may_be_kept(run):
    with pytest.raises(ModelError, match="'emu'"):
        open_teacher(run, source_classes=("ant", "emu"))
    assert open_teacher(run, source_classes=("ant", "emu"), classes="teacher").classes == CLASSES


def test_a_map_beyond_the_outputs_of_a_nameless_network_is_an_error(tmp_path):
    model = load_model("timm:test_resnet", num_classes=2)
    nameless = Run.of(tmp_path / "run", model=model, classes=None, settings={}, versions={}, data={}).create()
    nameless.save_weights(model.module.state_dict())
    (tmp_path / "map.yaml").write_text("a: 0\nb: 2\n")
    with pytest.raises(ModelError, match="beyond the teacher's 2 outputs"):
        open_teacher(f"run:{nameless.path}", source_classes=("a", "b"), class_map=tmp_path / "map.yaml")
    with pytest.raises(ModelError, match="2 outputs without names, the source has 3"):
        open_teacher(f"run:{nameless.path}", source_classes=("a", "b", "c"))


def test_numbers_that_overflow_are_an_error(tmp_path):
    model = load_model("timm:test_resnet", num_classes=2)
    with torch.no_grad():
        model.module.get_parameter("fc.bias").fill_(float("nan"))
    broken = Run.of(tmp_path / "run", model=model, classes="ab", settings={}, versions={}, data={}).create()
    broken.save_weights(model.module.state_dict())
    with pytest.raises(ModelError, match="NaN"):
        open_teacher(f"run:{broken.path}", size=64).probabilities(VIEWS)


def test_its_description_is_plain_steady_and_without_folders(run):
    teacher = open_teacher(run, size=64, source_classes=CLASSES)
    text = json.dumps(teacher.describe(), sort_keys=True)
    assert json.dumps(teacher.describe(), sort_keys=True) == text
    assert "/" not in text
    described = teacher.describe()
    assert described["uri"] == "run:teacher"
    assert len(described["weights_sha256"]) == 64
    assert described["precision"] in ("fp32", "bf16")
    assert (described["size"], described["channels_last"]) == (64, True)


def worker(spec, views, results):
    results.put(spec.open().probabilities(views).tobytes())


def test_its_spec_gives_the_same_bytes_in_a_spawned_process(run):
    teacher = open_teacher(run, size=64, threads=1)
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=worker, args=(teacher.spec, VIEWS, results))
    process.start()
    theirs = results.get()
    process.join()
    assert theirs == teacher.probabilities(VIEWS).tobytes()


def test_precision_is_settled_once(run):
    assert choose_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    assert open_teacher(run, size=64).spec.precision != "auto"


def test_an_imagenet_teacher_knows_real_photos(real_data):
    import cv2

    folder = real_data / "photos" / "imagenette224" / "val"
    classes = tuple(sorted(path.name for path in folder.iterdir()))
    files = [file for name in classes for file in sorted((folder / name).iterdir())[:2]]
    images = [np.asarray(cv2.imread(str(file)))[..., ::-1] for file in files]
    views_BHWC = np.stack([cv2.resize(image, (160, 160)) for image in images]).astype(np.uint8)
    weights = real_data / "weights" / "mobilenetv2_100.fp16.safetensors"
    teacher = open_teacher(f"timm:mobilenetv2_100@{weights}", size=160, source_classes=classes)
    right = teacher.probabilities(views_BHWC).argmax(axis=1) == np.repeat(np.arange(10), 2)
    assert right.sum() >= 16
    assert 0 < teacher.unmapped_share < 0.9


@pytest.mark.parametrize("forward", ["contiguous", "channels_last+compiled", "contiguous+compiled"])
def test_every_way_gives_the_same_probabilities(run, monkeypatch, forward):
    """A compiled network sees batches of one size: what is smaller is filled up, and its own rows come back."""
    sizes = []

    def compile_(module, dynamic):
        assert dynamic is False

        def answer(images):
            sizes.append(len(images))
            return module(images)

        return answer

    monkeypatch.setattr(torch, "compile", compile_)
    teacher = TeacherSpec(uri=run, size=64, precision="fp32", forward=forward).open()
    np.testing.assert_allclose(teacher.probabilities(VIEWS), plain(run), atol=2e-4)
    np.testing.assert_allclose(teacher.probabilities(VIEWS[:2]), plain(run)[:2], atol=2e-4)
    many = np.concatenate([VIEWS] * 6)
    np.testing.assert_allclose(teacher.probabilities(many), np.concatenate([plain(run)] * 6), atol=2e-4)
    assert sizes == ([32] * 4 if "compiled" in forward else [])
    described = teacher.describe()
    assert described["channels_last"] == ("channels_last" in forward)
    assert described.get("compiled", False) == ("compiled" in forward)


def test_without_a_compiler_it_says_what_to_do(run, monkeypatch):
    def compile_(module, dynamic):
        def answer(images):
            raise RuntimeError("Could not find a C++ compiler\nset CXX")

        return answer

    monkeypatch.setattr(torch, "compile", compile_)
    teacher = TeacherSpec(uri=run, size=64, forward="contiguous+compiled").open()
    with pytest.raises(
        ModelError, match=r"does not work here \(Could not find a C\+\+ compiler\); install a C\+\+ compiler, or"
    ):
        teacher.probabilities(VIEWS)

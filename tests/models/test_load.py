import huggingface_hub
import huggingface_hub.constants
import pytest
import torch

from buttress.errors import ModelError
from buttress.models.imagenet import imagenet_classes
from buttress.models.load import at_size, build, load_model
from buttress.models.weights_file import write_weights

VIT = "timm:test_vit"


def saved(tmp_path, model, metadata=None, **changed):
    """A weights file with a model's tensors; `changed` replaces some of them, None leaves one out."""
    tensors = {**model.module.state_dict(), **changed}
    file = tmp_path / "w.safetensors"
    write_weights(file, {name: tensor for name, tensor in tensors.items() if tensor is not None}, metadata or {})
    return file


def same(left, right):
    pairs = zip(left.module.state_dict().items(), right.module.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_the_lite_models_bring_their_own_preprocessing(real_data):
    file = real_data / "weights" / "tf_efficientnet_lite0.fp16.safetensors"
    loaded = load_model(f"timm:tf_efficientnet_lite0@{file}")
    assert loaded.preprocessing.mean == pytest.approx([127 / 255] * 3, abs=1e-6)
    assert loaded.preprocessing.std == pytest.approx([128 / 255] * 3, abs=1e-6)
    assert (loaded.preprocessing.size, loaded.preprocessing.interpolation) == (224, "bicubic")
    assert loaded.classes == imagenet_classes()
    assert loaded.pretrained
    assert loaded.weights_sha256 == "f18f84d1ed26f9215196d0daac6cb9d203e67db6a6e48c7d0c772747dadc15cf"
    assert {tensor.dtype for tensor in loaded.module.parameters()} == {torch.float32}


def test_a_bare_name_is_a_random_init_by_torchs_seed():
    torch.manual_seed(3)
    first = load_model(VIT, num_classes=5)
    second = load_model(VIT, num_classes=5)
    torch.manual_seed(3)
    assert same(first, load_model(VIT, num_classes=5))
    assert not same(first, second)
    assert (first.num_classes, first.classes, first.weights_sha256, first.pretrained) == (5, None, None, False)


def test_a_seed_fixes_the_init_and_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    assert same(load_model(VIT, seed=1), load_model(VIT, seed=1))
    assert not same(load_model(VIT, seed=1), load_model(VIT, seed=2))
    assert torch.equal(state, torch.get_rng_state())


def test_another_number_of_classes_gets_a_new_head_and_keeps_the_rest(tmp_path, capsys):
    trained = load_model(VIT, num_classes=7, seed=1)
    loaded = load_model(f"{VIT}@{saved(tmp_path, trained)}", num_classes=3)
    assert "a new head of 3 classes" in capsys.readouterr().err
    assert loaded.num_classes == 3
    assert loaded.module(torch.rand(1, 3, 160, 160)).shape == (1, 3)
    body = [name for name in loaded.module.state_dict() if not name.startswith("head.")]
    assert len(body) > 10
    for name in body:
        assert torch.equal(loaded.module.state_dict()[name], trained.module.state_dict()[name])


def test_the_same_number_of_classes_keeps_the_head(tmp_path):
    trained = load_model(VIT, num_classes=7, seed=1)
    assert same(trained, load_model(f"{VIT}@{saved(tmp_path, trained)}", num_classes=7))


def test_half_precision_becomes_float32(tmp_path):
    trained = load_model(VIT, num_classes=2)
    halves = {name: tensor.half() for name, tensor in trained.module.state_dict().items()}
    loaded = load_model(f"{VIT}@{saved(tmp_path, trained, **halves)}")
    assert torch.equal(loaded.module.get_parameter("head.weight"), halves["head.weight"].float())


def test_a_file_names_its_own_classes_even_where_it_has_a_thousand(tmp_path):
    names = [f"c{number}" for number in range(1000)]
    metadata = {"classes": str(names).replace("'", '"')}
    file = saved(tmp_path, load_model(VIT), metadata)
    assert load_model(f"{VIT}@{file}").classes == tuple(names)


def test_weights_without_normalisation_take_timms_and_say_so(tmp_path, capsys):
    loaded = load_model(f"{VIT}@{saved(tmp_path, load_model(VIT))}")
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert "no mean/std in its metadata" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"head.bias": None}, r"1 missing \(head.bias\)"),
        ({"extra": torch.ones(1)}, r"1 unexpected \(extra\)"),
        ({"norm.weight": torch.ones(3)}, r"1 of another shape \(norm.weight \(3,\) instead of \(64,\)\)"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(tmp_path, changed, says):
    file = saved(tmp_path, load_model(VIT), **changed)
    with pytest.raises(ModelError, match=says) as failure:
        load_model(f"{VIT}@{file}")
    assert "\n" not in str(failure.value)


def test_weights_of_another_model_are_named(tmp_path):
    file = saved(tmp_path, load_model(VIT), {"timm_model": "test_resnet"})
    with pytest.raises(ModelError, match=r"weights of test_resnet, not of test_vit"):
        load_model(f"{VIT}@{file}")


@pytest.mark.parametrize("kwargs", ['{"checkpoint_path": "x.pth"}', '{"num_classes": true}', "[]", "{"])
def test_hostile_arguments_in_a_file_are_refused(tmp_path, kwargs):
    file = saved(tmp_path, load_model(VIT), {"kwargs": kwargs})
    with pytest.raises(ModelError):
        load_model(f"{VIT}@{file}")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("timm:mobilenetv3_smal_050", "did you mean mobilenetv3_small_050"),
        ("timm:test_vit.nonsense", "has test_vit.r160_in1k"),
        ("timm:ig_resnext101_32x48d", "an old name that timm maps to resnext101_32x8d"),
        ("run:somewhere", "a timm: model is needed"),
    ],
)
def test_names_that_are_not_there_suggest_the_right_one(uri, says):
    with pytest.raises(ModelError, match=says):
        load_model(uri)


def test_a_file_and_no_weights_contradict():
    with pytest.raises(ModelError, match="drop @FILE"):
        load_model(f"{VIT}@w.safetensors", pretrained=False)


def test_pretrained_false_takes_no_weights_of_a_tag():
    assert not load_model("timm:test_vit.r160_in1k", pretrained=False).pretrained


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(("uri", "pretrained"), [("timm:test_vit.r160_in1k", None), (VIT, True)])
def test_an_unreachable_hub_is_one_line_that_suggests_a_file(hub_cache, uri, pretrained):
    with pytest.raises(ModelError, match=r"@FILE\.safetensors") as failure:
        load_model(uri, pretrained=pretrained)
    assert "\n" not in str(failure.value)


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path, monkeypatch, recwarn, caplog, capfd):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *words, **more: "http://127.0.0.1:9/weights")
    monkeypatch.setattr("timm.create_model", lambda *words, **more: pytest.fail("the download was tried all the same"))
    with pytest.raises(
        ModelError, match=r"cannot be downloaded \(.* does not answer: .*use timm:test_vit.r160_in1k@FILE"
    ):
        load_model("timm:test_vit.r160_in1k")
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_hub_weights_are_loaded_with_their_licence_and_digest(hub_cache):
    trained = load_model(VIT, seed=4)
    repository = hub_cache / "models--timm--test_vit.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    write_weights(repository / "snapshots" / "abc" / "model.safetensors", trained.module.state_dict(), {})
    loaded = load_model("timm:test_vit.r160_in1k")
    assert same(loaded, trained)
    assert (loaded.licence, loaded.pretrained, loaded.classes) == ("apache-2.0", True, imagenet_classes())
    assert loaded.weights_sha256 is not None
    assert len(loaded.weights_sha256) == 64
    assert loaded.weights_sha256 == load_model(VIT, pretrained=True).weights_sha256


def test_a_fixed_size_model_runs_at_another_size_and_can_be_built_again():
    loaded = at_size(load_model(VIT, num_classes=3, seed=1), 96)
    assert loaded.preprocessing.size == 96
    again = build(loaded.name, loaded.kwargs)
    again.load_state_dict(loaded.module.state_dict())
    images = torch.rand(2, 3, 96, 96)
    torch.testing.assert_close(again.eval()(images), loaded.module.eval()(images))


def test_a_convolutional_model_takes_any_size():
    loaded = at_size(load_model("timm:test_resnet", num_classes=3), 64)
    assert (loaded.preprocessing.size, loaded.kwargs) == (64, {"num_classes": 3})


def test_a_size_that_a_model_cannot_take_is_refused():
    with pytest.raises(ModelError, match="cannot run at 8 pixels"):
        at_size(load_model(VIT, num_classes=3), 8)

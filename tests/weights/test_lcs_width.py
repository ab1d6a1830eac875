"""LCS by width: which widths a step sees, the line of the norms, and what the trainer makes of it."""

import copy

import pytest
import timm
import torch
from tests.training.tiny import Folder, Loader
from tests.weights.lcs_nets import assert_resumes_to_the_same_bits, images, network, prepared, same, steps, train
from torch import nn

from buttress.errors import ModelError, SettingsError
from buttress.training.engine import fit
from buttress.training.optim import carry_over, plain_groups
from buttress.training.settings import EngineSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from buttress.weights.interpolation import Interpolated
from buttress.weights.lcs import Lcs
from buttress.weights.levels import set_level
from buttress.weights.settings import LcsSettings

KINDS = ("point", "line")


def widths_of(model, method):
    seen = []
    for move in method.passes(0):
        move()
        seen.append(model[3].width)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_sees_the_lowest_the_highest_and_two_drawn_evenly(kind):
    model = network()
    method = prepared(model, level="width", kind=kind, low=0.3, high=0.9)
    drawn = []
    for _ in steps(method):
        low, high, *rest = widths_of(model, method)
        assert (low, high, len(rest)) == (0.3, 0.9, 2)
        drawn += rest
    counts = torch.histc(torch.tensor(drawn), 4, 0.3, 0.9) / 2000
    assert (counts - 0.25).abs().max() < 0.05


def test_only_norms_lie_on_the_line_and_their_place_follows_the_width():
    model = network()
    method = prepared(model, level="width", kind="line", low=0.25)
    lines = [name for name, module in model.named_modules() if isinstance(module, Interpolated)]
    assert lines == [f"{n}.parametrizations.{tensor}.0" for n in (1, 4, 7) for tensor in ("weight", "bias")]
    for move in (lambda: set_level(model, width=0.4), lambda: method.passes(0)):
        move()
        assert model.get_submodule(lines[0]).coefficients.tolist() == pytest.approx([1 - 0.2, 0.2])
    for _ in steps(method, 3):
        for move in method.passes(0):
            move()
            place = (model[3].width - 0.25) / 0.75
            assert model.get_submodule(lines[0]).coefficients.tolist() == pytest.approx([1 - place, place])
    with torch.no_grad():
        for one in model.modules():
            if isinstance(one, Interpolated):
                one.others[0].normal_()
    listed = [model[n].parametrizations.weight for n in (1, 4, 7)]
    hard = torch.cat([each.original.detach() for each in listed]).double()
    easy = torch.cat([each[0].others[0].detach() for each in listed]).double()
    wanted = torch.dot(hard, easy) ** 2 / (torch.dot(hard, hard) * torch.dot(easy, easy))
    assert method.auxiliary_loss(model).item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tiny", "test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("width", [0.25, 0.7])
def test_a_materialised_level_has_the_same_logits_and_is_plain(kind, name, width):
    model = network() if name == "tiny" else timm.create_model(name, num_classes=5)
    plain = {name for name in model.state_dict() if "running" not in name and "num_batches" not in name}
    method = prepared(model.eval(), level="width", kind=kind, pretrained=True)
    size = sum(parameter.numel() for parameter in model.parameters())
    x = images(2, 6 if name == "tiny" else 64)
    set_level(model, width=width)
    with torch.no_grad():
        before = model(x)
        assert torch.equal(model(x), before)
        method.materialise(model)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    assert set(model.state_dict()) == plain
    assert sum(parameter.numel() for parameter in model.parameters()) < size
    assert method.encodings(model) == {}


def test_a_materialised_network_can_be_exported():
    model = timm.create_model("test_efficientnet", num_classes=5).eval()
    method = prepared(model, level="width")
    set_level(model, width=0.5)
    method.materialise(model)
    x = images(2, 64)
    exported = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=1e-5)


def test_levels():
    def shown(**settings):
        return tuple(map(str, Lcs(LcsSettings(level="width", **settings)).levels()))

    assert shown() == ("width=1", "width=0.75", "width=0.5", "width=0.375", "width=0.25")
    assert shown(kind="line", low=0.4, high=0.8) == ("width=0.8", "width=0.75", "width=0.5", "width=0.4")


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_width_is_the_easy_end(kind):
    model = network()
    method = prepared(model, level="width", kind=kind, low=0.5, high=0.5)
    assert set(widths_of(model, method)) == {0.5}
    if kind == "line":
        assert model[1].parametrizations.weight[0].coefficients.tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_stands_at_its_widest(kind):
    model = network()
    method = prepared(model, level="width", kind=kind, high=0.8)
    assert model[3].width == 0.8
    for _ in steps(method, 3):
        widths_of(model, method)
    method.before_evaluation(model, [], last=False)
    assert model[3].width == 0.8 and str(method.levels()[0]) == "width=0.8"


def test_levels_outside_are_refused():
    model = network()
    prepared(model, level="width")
    with pytest.raises(SettingsError, match=r"^level width=0\.2: outside 0\.25\.\.1, what this model was trained for$"):
        set_level(model, width=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_acted_on_is_refused(kind):
    model = network()
    prepared(model, level="width", kind=kind)
    with pytest.raises(ModelError, match=r"^lcs: (0 is slim already|1\.weight is parametrized already)"):
        prepared(model, level="width", kind=kind)
    with pytest.raises(ModelError, match=r"has no layer that it could act on$"):
        prepared(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), level="width", kind=kind)
    with pytest.raises(ModelError, match=r"^lcs: VisionTransformer cannot run at width"):
        prepared(timm.create_model("test_vit"), level="width", kind=kind)


def test_maps_of_one_pixel_are_told():
    model = network()
    prepared(model, level="width")
    with pytest.raises(
        ModelError, match=r"^an instance norm of 16 channels is given maps of one pixel, .* larger images"
    ):
        model(images(size=3))


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_keep_their_weight_decay(kind):
    model = network()
    kept, groups = dict(model.named_parameters()), plain_groups(model, 0.05)
    prepared(model, level="width", kind=kind)
    decays = {id(p): group["weight_decay"] for group in carry_over(groups, model) for p in group["params"]}
    assert len(decays) == len(kept) + (6 if kind == "line" else 0)
    assert all(decays[id(parameter)] == (0.05 if parameter.ndim > 1 else 0) for parameter in kept.values())


def test_a_copy_is_a_model_of_its_own():
    model = network()
    prepared(model, level="width")
    twin = copy.deepcopy(model)
    set_level(twin, width=0.25)
    assert model[3].width == 1.0 and twin[3].width == 0.25


def test_losses_of_the_widths_are_summed(tmp_path):
    """One step of plain SGD is that of the four widths' summed gradients."""
    model, method = network(), Lcs(LcsSettings(level="width"))
    sgd = OptimizerSettings(name="momentum", weight_decay=0, momentum=0)
    asked = TrainingSettings(
        epochs=1, batch=4, lr=0.1, precision="fp32", optimizer=sgd, schedule=ScheduleSettings(name="constant", warmup=0)
    )
    history = fit(model, Loader(1, soft=False), asked, run=Folder(tmp_path), methods=(method,))
    again = network()
    Lcs(LcsSettings(level="width")).prepare(again)
    (given,) = Loader(1, soft=False)
    assert isinstance(given.targets, torch.Tensor)
    images_BCHW, total = (given.images.float() / 255 - 0.5) / 0.25, torch.zeros(())
    for width in vars(method._regime)["_widths"]:
        set_level(again, width=width)
        total = total + nn.functional.cross_entropy(again(images_BCHW), given.targets)
    assert history.step_losses == [pytest.approx(total.item() / 4, rel=1e-5)]
    total.backward()
    for (name, trained), start in zip(model.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(trained, start - 0.1 * start.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_gives_the_same_bits(tmp_path, kind):
    assert_resumes_to_the_same_bits(tmp_path, (2, 1), level="width", kind=kind)


def test_a_training_ends_at_the_widest_and_loads_into_an_attached_model(tmp_path):
    model, _, run = train(tmp_path, level="width", kind="line", engine=EngineSettings(ema_decay=0.9))
    assert model[3].width == 1.0
    again = network(5)
    Lcs(LcsSettings(level="width", kind="line")).attach(again)
    again.load_state_dict(run.weights)
    assert same(again.state_dict(), model.state_dict())

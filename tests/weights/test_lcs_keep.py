"""LCS by sparsity: what is drawn, what is zero, and what the trainer makes of it."""

import copy
import math

import pytest
import timm
import torch
from tests.weights.lcs_nets import assert_resumes_to_the_same_bits, images, network, prepared, same, steps, train
from torch import nn
from torch.nn.utils import parametrize

from buttress.errors import ModelError, SettingsError
from buttress.training.ema import Ema
from buttress.training.optim import carry_over, plain_groups
from buttress.training.settings import EngineSettings
from buttress.weights.interpolation import Interpolated
from buttress.weights.lcs import Lcs
from buttress.weights.levels import Level, set_level
from buttress.weights.masks import TopK
from buttress.weights.settings import LcsSettings

KINDS = ("point", "line")


def masks(model):
    return [module for module in model.modules() if isinstance(module, TopK)]


def zeros(model):
    """Share of zeros of the inner layers' weights."""
    return [float((model[number].weight == 0).double().mean()) for number in (3, 6, 11)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_the_network_stay_dense(kind):
    model = network()
    prepared(model, kind=kind)
    set_level(model, keep=0.1)
    assert zeros(model) == pytest.approx([int(0.9 * n) / n for n in (384, 216, 480)])
    assert not (model[0].weight == 0).any() and not (model[13].weight == 0).any()


def test_a_network_without_convolutions_keeps_its_first_layer():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    prepared(model)
    assert [parametrize.is_parametrized(layer) for layer in model] == [False, True, False]


def test_batch_norms_are_replaced_unless_there_is_but_one_level():
    for kind, wanted in (("point", nn.GroupNorm), ("line", nn.GroupNorm), ("target", nn.BatchNorm2d)):
        model = network()
        prepared(model, kind=kind, norm="group")
        assert isinstance(model[1], wanted)
        model = network()
        prepared(model, kind=kind)
        assert isinstance(model[1], nn.BatchNorm2d)


@pytest.mark.parametrize("kind", ["point", "line"])
def test_batch_statistics_follow_the_level(kind):
    """At a stored level they are those of the batches there, taken here by hand; between two they are blended."""
    model = network()
    method = prepared(model, kind=kind, low=0.1)
    batches = [images(8) + i for i in range(3)]
    method.before_evaluation(model, batches, last=True)
    stored = [point[0] for point in model[1].level_statistics.points]
    assert {0.1, 0.25, 0.5, 1.0} < set(stored) and len(stored) == 11
    means = {}
    for keep in (0.1, 0.25, 1.0):
        set_level(model, keep=keep)
        outs = [model[0](batch) for batch in batches]
        means[keep] = torch.stack([out.mean((0, 2, 3)) for out in outs]).mean(0).detach()
        variances = torch.stack([out.transpose(0, 1).flatten(1).var(1, correction=1) for out in outs]).mean(0)
        torch.testing.assert_close(model[1].running_mean, means[keep], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model[1].running_var, variances.detach(), rtol=1e-4, atol=1e-5)
    below, above = (model[1].level_statistics.means_PC[stored.index(x)] for x in (stored[0], stored[1]))
    set_level(model, keep=(stored[0] * stored[1]) ** 0.5)
    torch.testing.assert_close(model[1].running_mean, (below + above) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("draw", ["uniform", "log"])
def test_a_point_is_dense_first_and_then_drawn_evenly(draw):
    model = network()
    method = prepared(model, low=0.2, high=0.7, warmup=0.4, draw=draw)
    drawn = []
    for _ in steps(method, 2000):
        (share,) = {mask.keep for mask in masks(model)}
        drawn.append(share)
    assert set(drawn[:800]) == {1.0}
    late = torch.tensor(drawn[800:])
    assert late.min() >= 0.2 and late.max() <= 0.7
    if draw == "log":
        late = 0.2 + 0.5 * torch.log(late / 0.2) / math.log(0.7 / 0.2)
    counts = torch.histc(late, 5, 0.2, 0.7) / len(late)
    assert (counts - 0.2).abs().max() < 0.05


def test_a_line_is_drawn_with_a_bias_to_its_ends_and_thins_out():
    model = network()
    method = prepared(model, kind="line", low=0.1, high=0.9, warmup=0.5)
    (line, *others) = [module for module in model.modules() if isinstance(module, Interpolated)]
    places = []
    for step in steps(method, 2000):
        first, a = line.coefficients.tolist()
        assert first == pytest.approx(1 - a, abs=1e-6)
        assert all(torch.equal(other.coefficients, line.coefficients) for other in others)
        wanted = a + (1 - a) * max(0, 1 - step / 1000)
        assert [mask.keep for mask in masks(model)] == pytest.approx([wanted] * 3, abs=1e-6)
        places.append(a)
    drawn = torch.tensor(places)
    low, high = (drawn - 0.1).abs() < 1e-6, (drawn - 0.9).abs() < 1e-6
    assert float(low.double().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(high.double().mean()) == pytest.approx(0.25, abs=0.03)
    counts = torch.histc(drawn[~low & ~high], 4, 0.1, 0.9) / len(drawn)
    assert (counts - 0.125).abs().max() < 0.03


def test_a_target_is_reached_when_the_warmup_ends():
    model = network()
    method = prepared(model, kind="target", low=0.2, warmup=0.5)
    shares = [masks(model)[0].keep for _ in steps(method, 10)]
    assert shares == pytest.approx([0.2 + 0.8 * max(0, 1 - step / 5) for step in range(10)])


def test_without_warmup_the_levels_count_from_the_start():
    for kind in ("point", "line", "target"):
        model = network()
        method = prepared(model, kind=kind, low=0.1, high=0.5, warmup=0.0)
        assert all(masks(model)[0].keep <= 0.5 for _ in steps(method, 20))


def test_a_level_of_a_line_blends_before_it_drops():
    model = network()
    method = prepared(model, kind="line")
    easy = dict(model.named_parameters())["3.parametrizations.weight.0.others.0"].detach()
    hard = dict(model.named_parameters())["3.parametrizations.weight.original"].detach()
    set_level(model, keep=0.3)
    blended = (1 - 0.3) * hard.double() + 0.3 * easy.double()
    cut = blended.abs().flatten().sort().values[int(0.7 * blended.numel())]
    wanted = torch.where(blended.abs() >= cut, blended, 0.0)
    torch.testing.assert_close(model[3].weight.double(), wanted, rtol=1e-5, atol=1e-6)
    norm = dict(model.named_parameters())["4.parametrizations.weight.0.others.0"]
    assert norm.requires_grad
    method.materialise(model)
    torch.testing.assert_close(model[3].weight.double(), wanted, rtol=1e-5, atol=1e-6)


def test_the_pull_is_the_cosine_of_the_layers_weights():
    model = network()
    method = prepared(model, kind="line", beta=3.0)
    product = hard = easy = 0.0
    for number in (0, 3, 6, 11, 13):
        listed = model[number].parametrizations.weight
        one, other = listed.original.detach().double(), listed[0].others[0].detach().double()
        product, hard, easy = product + (one * other).sum(), hard + (one**2).sum(), easy + (other**2).sum()
    assert method.auxiliary_loss(model).item() == pytest.approx(3 * float(product**2 / (hard * easy)), rel=1e-4)
    assert prepared(network(), kind="line", beta=0.0).auxiliary_loss(network()) is None
    assert prepared(network(), kind="point").auxiliary_loss(network()) is None


@pytest.mark.parametrize("kind", [*KINDS, "target"])
@pytest.mark.parametrize("name", ["tiny", "test_resnet"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_materialised_level_has_the_same_logits_and_is_plain(kind, name, norm):
    model = network() if name == "tiny" else timm.create_model(name, num_classes=5)
    statistics = () if kind == "target" or norm == "batch" else ("running_mean", "running_var", "num_batches_tracked")
    plain = {name for name in model.state_dict() if not name.endswith(statistics)}
    method = prepared(model.eval(), kind=kind, low=0.1, norm=norm)
    x = images(2, 6 if name == "tiny" else 32)
    method.before_evaluation(model, [x, x + 1], last=True)
    set_level(model, keep=0.1)
    with torch.no_grad():
        before = model(x)
        names = method.encodings(model)
        method.materialise(model)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    assert set(model.state_dict()) == plain
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(names) == len(layers) - 2
    for name in names:
        weight = model.state_dict()[name]
        assert int((weight == 0).sum()) == int((1 - 0.1) * weight.numel())


def test_levels():
    def shown(**settings):
        return tuple(map(str, Lcs(LcsSettings(**settings)).levels()))

    assert shown() == ("keep=1", "keep=0.5", "keep=0.25", "keep=0.1", "keep=0.025")
    assert shown(kind="line", low=0.1, high=0.3) == ("keep=0.3", "keep=0.25", "keep=0.1")
    assert shown(low=0.5, high=0.5) == ("keep=0.5",)
    assert shown(kind="target") == ()


def test_the_model_stands_at_its_easiest_level():
    for kind, wanted in (("point", 0.8), ("line", 0.8), ("target", 0.05)):
        model = network()
        method = prepared(model, kind=kind, low=0.05, high=0.8)
        assert masks(model)[0].keep == wanted
        for _ in steps(method, 10):
            pass
        method.before_evaluation(model, [images()], last=True)
        assert masks(model)[0].keep == wanted
        if kind != "target":
            assert method.levels()[0] == Level.of("keep", wanted)


@pytest.mark.parametrize(("level", "easiest"), [("keep", 1.0), ("bits", 8)])
def test_a_training_is_scored_with_statistics_of_its_easiest_level(level, easiest):
    """Those of all levels are taken at the end alone; until then the stored ones must not be looked at."""
    model = network()
    method = prepared(model, level=level)
    model.train()(images(8))
    for last in (False, True):
        for norm in (model[1], model[4]):
            norm.reset_running_stats()
        method.before_evaluation(model, [images(8)], last=last)
        mean = model[1].running_mean.clone()
        seen: list[torch.Tensor] = []
        handle = model[1].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        with torch.no_grad():
            model.eval()(images(8))
        handle.remove()
        torch.testing.assert_close(mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        parts = [part for part in model.modules() if isinstance(part, TopK)]
        assert {part.keep for part in parts} == ({easiest} if level == "keep" else set())


def test_a_training_too_short_for_its_warm_up_is_refused():
    method = prepared(network(), warmup=0.9)
    with pytest.raises(SettingsError, match=r"lcs\.warmup = 0\.9: no step of 6 comes after it; train longer"):
        method.before_step(0, 6, torch.Generator())


def test_a_target_gets_the_statistics_of_its_sparse_self():
    model = network()
    method = prepared(model, kind="target", low=0.1, warmup=0.5)
    for _ in steps(method, 2):
        pass
    method.before_evaluation(model, [images(8)], last=True)
    mean, seen = model[4].running_mean.clone(), []
    handle = model[4].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model.train()(images(8))
    handle.remove()
    torch.testing.assert_close(mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_levels_outside_are_refused():
    model = network()
    prepared(model, low=0.1)
    with pytest.raises(SettingsError, match=r"^level keep=0\.01: outside 0\.1\.\.1, what this model was trained for$"):
        set_level(model, keep=0.01)
    with pytest.raises(ModelError, match=r"^level bits=4: this model has levels of keep$"):
        set_level(model, bits=4)
    target = network()
    prepared(target, kind="target", low=0.1)
    with pytest.raises(SettingsError, match=r"outside 0\.1\.\.0\.1"):
        set_level(target, keep=0.5)


def test_what_cannot_be_acted_on_is_refused():
    model = network()
    prepared(model)
    with pytest.raises(ModelError, match=r"^lcs: 3\.weight is parametrized already; a model takes one method"):
        prepared(model)
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(ModelError, match=r"^lcs: this model \(Sequential\) has no layer that it could act on$"):
        prepared(small)
    assert isinstance(small[1], nn.BatchNorm2d)


@pytest.mark.parametrize("kind", [*KINDS, "target"])
def test_parameters_live_on_and_keep_their_weight_decay(kind):
    model = network()
    kept = dict(model.named_parameters())
    groups = plain_groups(model, 0.05)
    prepared(model, kind=kind)
    listed = set(map(id, model.parameters()))
    assert all(id(parameter) in listed for parameter in kept.values())
    decays = {id(p): group["weight_decay"] for group in carry_over(groups, model) for p in group["params"]}
    for name, parameter in model.named_parameters():
        layer = name.split(".")[0]
        assert decays[id(parameter)] == (0.05 if layer in ("0", "3", "6", "11", "13") and parameter.ndim > 1 else 0), (
            name
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_a_model_of_its_own(kind):
    model = network()
    prepared(model.eval(), kind=kind)
    twin = copy.deepcopy(model)
    set_level(twin, keep=0.1)
    assert zeros(model) == [0, 0, 0]
    assert zeros(twin)[0] > 0.85
    x = images()
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


def test_masks_follow_a_moving_average():
    model = network()
    prepared(model, kind="point")
    average = Ema(model, frozenset(), 0.5)
    with torch.no_grad():
        model[3].parametrizations.weight.original.copy_(torch.randn(24, 16, 1, 1))
    average.update(100)
    held = average.shadow.get_parameter("3.parametrizations.weight.original").detach().clone()
    with average.in_place():
        set_level(model, keep=0.5)
        cut = held.abs().flatten().median()
        assert torch.equal(model[3].weight.detach() == 0, held.abs() <= cut)


@pytest.mark.parametrize("kind", [*KINDS, "target"])
def test_a_resumed_training_gives_the_same_bits(tmp_path, kind):
    assert_resumes_to_the_same_bits(tmp_path, (2, 1), kind=kind)


def test_a_training_ends_at_the_easiest_level_and_loads_into_an_attached_model(tmp_path):
    model, _, run = train(tmp_path, kind="line", engine=EngineSettings(ema_decay=0.9))
    assert masks(model)[0].keep == 1.0
    again = network(5)
    Lcs(LcsSettings(kind="line")).attach(again)
    again.load_state_dict(run.weights)
    assert same(again.state_dict(), model.state_dict())
    set_level(again, keep=0.25)
    set_level(model, keep=0.25)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images()), model(images()), rtol=1e-5, atol=1e-6)

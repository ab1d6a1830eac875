"""Subspaces against formulas written again, and as the trainer uses them."""

import copy
import itertools
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.tiny import Folder, Loader, network
from torch import nn
from torch.nn.utils import parametrize

from buttress.errors import ModelError, SettingsError
from buttress.training.ema import Ema
from buttress.training.engine import fit
from buttress.training.optim import carry_over, plain_groups
from buttress.training.rng import seed_everything
from buttress.training.settings import EngineSettings, TrainingSettings
from buttress.weights import interpolation
from buttress.weights.ensemble import MeanLogits
from buttress.weights.interpolation import (
    Interpolated,
    blend,
    blend_together,
    chunked,
    corner_like,
    corner_lists,
    squared_cosine,
)
from buttress.weights.levels import Level, levelled, of_level, set_level
from buttress.weights.settings import SubspaceSettings
from buttress.weights.sites import sites
from buttress.weights.subspace import Subspace

KINDS: dict[Any, tuple[float, ...]] = {"line": (0.3,), "curve": (0.3,), "simplex": (0.2, 0.5)}


def prepared(model, **settings):
    method = Subspace(SubspaceSettings(**settings))
    torch.manual_seed(1)
    method.prepare(model)
    return method


def weights(model):
    return corner_lists(sites(model, "conv", "linear", tensors=("weight",)))


def images(count=4, size=6):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def batches(number=3, count=8, size=6):
    return [images(count, size) + i for i in range(number)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_is_the_papers_blend_of_its_corners(kind):
    torch.manual_seed(0)
    w = [torch.randn(3, 4, 2, 2, dtype=torch.float64) for _ in range(2 if kind == "line" else 3)]
    point = KINDS[kind]
    blended = Interpolated(w[1:], kind, point)(w[0])
    a = point[0]
    wanted = {
        "line": lambda: (1 - a) * w[0] + a * w[1],
        "curve": lambda: (1 - a) ** 2 * w[0] + 2 * a * (1 - a) * w[2] + a**2 * w[1],
        "simplex": lambda: (1 - 0.2 - 0.5) * w[0] + 0.2 * w[1] + 0.5 * w[2],
    }[kind]()
    torch.testing.assert_close(blended, wanted, rtol=1e-6, atol=1e-7)


@given(st.floats(0, 1))
def test_coefficients_sum_to_one(a):
    points: dict[Any, tuple[float, ...]] = {"line": (a,), "curve": (a,), "simplex": (a / 2, a / 3)}
    for kind, point in points.items():
        assert sum(blend(kind, point)) == pytest.approx(1)
        assert min(blend(kind, point)) >= 0
    assert blend("curve", (0.0,)) == (1, 0, 0) and blend("curve", (1.0,)) == (0, 1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_corner(kind):
    others = [torch.randn(2, 3, dtype=torch.float64) for _ in range(1 if kind == "line" else 2)]
    module = Interpolated(others, kind, KINDS[kind]).double()
    corners = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True), *module.others]

    def forward(*w):
        return torch.func.functional_call(module, {f"others.{i}": x for i, x in enumerate(w[1:])}, (w[0],))

    assert torch.autograd.gradcheck(forward, corners)
    module(corners[0]).sum().backward()
    for coefficient, corner in zip(blend(kind, KINDS[kind]), corners, strict=True):
        torch.testing.assert_close(corner.grad, torch.full_like(corner, coefficient), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (2, 1)])
def test_the_regulariser_is_one_cosine_of_all_weights(pair):
    model: Any = network()
    prepared(model, kind="curve")
    both = []
    for number in pair:
        found = []
        for layer in (model[0], model[6]):
            each = layer.parametrizations.weight
            found.append((each.original if number == 0 else each[0].others[number - 1]).detach().double().flatten())
        both.append(torch.cat(found))
    wanted = nn.functional.cosine_similarity(both[0], both[1], dim=0) ** 2
    value = squared_cosine(*(weights(model)[number] for number in pair))
    assert value.item() == pytest.approx(float(wanted), rel=1e-5)
    value.backward()
    first = model[0].parametrizations.weight
    norms = model[1].parametrizations.weight
    assert [x.grad is not None for x in (first.original, *first[0].others)] == [i in pair for i in range(3)]
    assert norms.original.grad is None


def test_the_regulariser_has_the_gradient_of_its_formula():
    model: Any = network().double()
    prepared(model)
    corners = [p for layer in (model[0], model[6]) for p in layer.parametrizations.weight.parameters()]
    assert len(corners) == 4

    def cosine(*values):
        names = {id(p): n for n, p in model.named_parameters()}
        state = {names[id(p)]: v for p, v in zip(corners, values, strict=True)}
        with torch.nn.utils.stateless._reparametrize_module(model, state):
            return squared_cosine(*weights(model))

    assert torch.autograd.gradcheck(cosine, [c.detach().clone().requires_grad_() for c in corners])


def test_the_first_corner_is_the_plain_model():
    model: Any = network().eval()
    before = model(images())
    prepared(model, kind="simplex", corners=4)
    for _, part in levelled(model, "at"):
        if isinstance(part, Interpolated):
            part.place((0.0, 0.0, 0.0))
    assert torch.equal(model(images()), before)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_a_materialised_point_has_the_same_logits_and_is_plain(name):
    torch.manual_seed(0)
    plain: Any = timm.create_model(name, num_classes=7)
    names = list(plain.state_dict())
    method = prepared(plain, kind="line")
    method.before_evaluation(plain, batches(2, 4, plain.default_cfg["input_size"][-1]), last=True)
    set_level(plain, at=0.25)
    plain.eval()
    inputs = images(2, plain.default_cfg["input_size"][-1])
    with torch.no_grad():
        wanted = plain(inputs)
        method.materialise(plain)
        torch.testing.assert_close(plain(inputs), wanted, rtol=1e-5, atol=1e-5)
    assert list(plain.state_dict()) == names
    assert not any(isinstance(m, (Interpolated, parametrize.ParametrizationList)) for m in plain.modules())
    assert type(plain.get_classifier()) is nn.Linear


def test_whole_and_layerwise_draws():
    model: Any = network()
    generator = torch.Generator().manual_seed(3)
    method = prepared(model)
    seen = []
    for step in range(200):
        method.before_step(step, 200, generator)
        told = [part.coefficients for _, part in levelled(model, "at") if isinstance(part, Interpolated)]
        assert all(torch.equal(each, told[0]) for each in told)
        seen.append(float(told[0][1]))
    assert 0.42 < sum(seen) / 200 < 0.58 and min(seen) < 0.05 and max(seen) > 0.95
    other: Any = network()
    method = prepared(other, draw="layer")
    method.before_step(0, 1, generator)
    points = {
        m: [float(p[0].coefficients[1]) for p in m.parametrizations.values()] for m in (other[0], other[1], other[6])
    }
    assert len({values[0] for values in points.values()}) == 3
    assert all(len(set(values)) == 1 for values in points.values())


def test_a_simplex_is_drawn_evenly():
    """Exponentials over their sum are Dirichlet(1, 1, 1): each weight has mean 1/3 and variance 1/18."""
    model: Any = network()
    method = prepared(model, kind="simplex")
    generator = torch.Generator().manual_seed(0)
    part = next(part for _, part in levelled(model, "at") if isinstance(part, Interpolated))
    told = []
    for step in range(1500):
        method.before_step(step, 1500, generator)
        told.append(part.coefficients.clone())
    drawn = torch.stack(told)
    assert torch.allclose(drawn.mean(0), torch.full((3,), 1 / 3), atol=0.02)
    assert torch.allclose(drawn.var(0), torch.full((3,), 1 / 18), atol=0.006)
    assert method.midpoint == pytest.approx((1 / 3, 1 / 3))
    assert len(method.points) == 4


def test_a_corner_from_scratch_is_another_draw_of_the_same_init():
    torch.manual_seed(0)
    first = torch.randn(40, 50)
    other = corner_like(first, pretrained=False)
    assert torch.equal(other.flatten().sort().values, first.flatten().sort().values)
    assert abs(float(nn.functional.cosine_similarity(first.flatten(), other.flatten(), dim=0))) < 0.1
    near = corner_like(first, pretrained=True)
    assert float((near - first).std()) == pytest.approx(0.1 * float(first.std()), rel=0.1)


def test_statistics_are_kept_for_every_point():
    model: Any = network()
    method = prepared(model)
    method.before_evaluation(model, batches(), last=True)
    for a in (0.0, 0.25, 0.5, 0.75, 1.0):
        set_level(model, at=a)
        weight = model[0].weight.detach()
        means, variances = [], []
        for batch in batches():
            out = nn.functional.conv2d(batch, weight)
            means.append(out.mean((0, 2, 3)))
            variances.append(out.transpose(0, 1).flatten(1).var(1, correction=1))
        torch.testing.assert_close(model[1].running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model[1].running_var, torch.stack(variances).mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(SettingsError, match=r"level at=0.3: batch statistics are kept at 0, 0.25, 0.5, 0.75, 1 alone"):
        set_level(model, at=0.3)


@pytest.mark.parametrize(
    ("kind", "level", "message"),
    [
        ("line", 1.5, "level at=1.5: outside 0..1"),
        ("simplex", 0.5, "points have 2 numbers, as in at=0.333333333333/0.333333333333"),
        ("simplex", (0.8, 0.8), "outside the simplex, whose points sum to at most 1"),
    ],
)
def test_levels_outside_are_refused(kind, level, message):
    model = timm.create_model("test_vit", num_classes=3)
    prepared(model, kind=kind)
    with pytest.raises(SettingsError, match=message):
        set_level(model, at=level)


def test_a_refused_level_leaves_the_model_where_it_was():
    model: Any = network()
    prepared(model).before_evaluation(model, batches(), last=True)
    set_level(model, at=0.25)
    before = model.eval()(images())
    with pytest.raises(SettingsError, match="batch statistics are kept at"):
        set_level(model, at=0.3)
    assert torch.equal(model(images()), before)


def test_what_cannot_be_acted_on_is_refused():
    model: Any = network()
    prepared(model)
    with pytest.raises(ModelError, match=r"subspace: 0.weight is parametrized already; a model takes one method"):
        prepared(model)
    with pytest.raises(ModelError, match="no layer that it could act on"):
        prepared(nn.Sequential(nn.ReLU()))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ModelError, match="shared with another layer"):
        prepared(tied)


def test_corners_take_the_decay_of_the_plain_weight():
    class Marked(nn.Sequential):
        def no_weight_decay(self):
            return {"0.weight"}

    model = Marked(nn.Linear(3, 3), nn.Linear(3, 3))
    groups = plain_groups(model, 0.1)
    prepared(model, kind="curve")
    decay = {id(p): group["weight_decay"] for group in carry_over(groups, model) for p in group["params"]}
    told = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert len(told) == 12
    assert {name for name, value in told.items() if value == 0.1} == {
        "1.parametrizations.weight.original",
        "1.parametrizations.weight.0.others.0",
        "1.parametrizations.weight.0.others.1",
    }


def fitted(path, loader=None, resume=False, **engine):
    seed_everything(0)
    asked = TrainingSettings(epochs=3, batch=4, lr=0.01, precision="fp32", engine=EngineSettings(**engine))
    model, run = network(), Folder(path)
    method = Subspace(SubspaceSettings(draw="layer"))
    fit(model, loader or Loader(), asked, run=run, methods=(method,), val_loader=Loader(soft=False), resume=resume)
    return model, run


@pytest.mark.parametrize("engine", [{}, {"ema_decay": 0.9}])
def test_a_resumed_training_gives_the_same_bits(tmp_path, engine):
    straight, run = fitted(tmp_path / "a", **engine)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "b", Loader(die_at=(2, 1)), **engine)
    resumed, _ = fitted(tmp_path / "b", resume=True, **engine)
    assert all(
        torch.equal(x, y) for x, y in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    first, other = (
        run.weights["0.parametrizations.weight.original"],
        run.weights["0.parametrizations.weight.0.others.0"],
    )
    assert not torch.equal(first, other)
    assert float(run.weights["1.level_statistics.variances_PC"].std()) > 0


def test_a_moving_average_follows():
    model: Any = network()
    plain = frozenset(name for name, _ in model.named_buffers())
    prepared(model)
    average = Ema(model, plain, 0.5)
    shadow = copy.deepcopy(model).state_dict()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    for step in itertools.count():
        average.update(step)
        if step == 3:
            break
    moved = average.shadow.state_dict()["0.parametrizations.weight.0.others.0"]
    assert not torch.equal(moved, shadow["0.parametrizations.weight.0.others.0"])


def test_an_ensemble_is_the_mean_of_logits():
    members = []
    for _ in range(2):
        model = timm.create_model("test_vit", num_classes=3)
        torch.manual_seed(0)
        method = Subspace(SubspaceSettings())
        method.attach(model)
        members.append((model.eval(), (method,)))
    members[1][0].load_state_dict(members[0][0].state_dict())
    inputs, wanted = images(2, 160), []
    for a in (0.0, 1.0):
        set_level(members[0][0], at=a)
        wanted.append(members[0][0](inputs))
    both, stored = of_level(members, Level.parse("at=0+1"), measured=True)
    assert isinstance(both, MeanLogits)
    assert stored is not None and stored > 2 * 4 * sum(p.numel() for p in both.members[0].parameters())
    torch.testing.assert_close(both(inputs), (wanted[0] + wanted[1]) / 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_blends_made_together_train_as_those_made_one_by_one(kind, beta):
    """Values, regulariser and gradients of a pass, with and without the values that a pass is given."""
    told: list[tuple[float, list[torch.Tensor]]] = []
    for together in (True, False):
        torch.manual_seed(0)
        model: Any = network().double()
        method = prepared(model, kind=kind, beta=beta)
        method.before_step(0, 1, torch.Generator().manual_seed(5))
        with parametrize.cached():
            if together:
                method.passes(0)[0]()
            loss = model(images().double()).square().sum()
            pull = method.auxiliary_loss(model)
            assert (pull is None) == (beta == 0)
        (loss if pull is None else loss + pull).backward()
        told.append((loss.item(), [p.grad for p in model.parameters()]))
    (ours, gradients), (theirs, wanted) = told
    assert ours == pytest.approx(theirs, rel=1e-6)
    torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("chunk", [1, 6, 65_536])
@pytest.mark.parametrize("kind", KINDS)
def test_blends_made_together_have_the_gradient_of_their_formula(kind, chunk, monkeypatch):
    monkeypatch.setattr(interpolation, "CHUNK", chunk)
    count = 2 if kind == "line" else 3
    shapes = [(2, 3), (4,), (1, 2, 2, 2)]
    torch.manual_seed(0)
    flat = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(count) for shape in shapes]

    def forward(*tensors):
        corners_CT = [tensors[start : start + 3] for start in range(0, len(tensors), 3)]
        cosine, blends = blend_together(
            blend(kind, KINDS[kind]), corners_CT, (0, count - 1), chunked(corners_CT[0], {0, 2}), 0.7
        )
        alone = squared_cosine(*([corners_CT[number][place] for place in (0, 2)] for number in (0, count - 1)))
        torch.testing.assert_close(cosine, 0.7 * alone)
        return cosine, *blends

    assert torch.autograd.gradcheck(forward, flat)


def test_a_layer_that_is_not_used_is_pulled_in_two_corners_and_not_moved_in_others():
    torch.manual_seed(0)
    corners_CT = [[torch.randn(3, requires_grad=True), torch.randn(2, requires_grad=True)] for _ in range(3)]
    cosine, blends = blend_together((0.2, 0.3, 0.5), corners_CT, (0, 2), chunked(corners_CT[0], {0}))
    (cosine + blends[1].sum()).backward()
    assert corners_CT[0][0].grad is not None and corners_CT[2][0].grad is not None
    assert corners_CT[1][0].grad is None
    wanted = torch.autograd.grad(squared_cosine([corners_CT[0][0]], [corners_CT[2][0]]), corners_CT[0][0])[0]
    torch.testing.assert_close(corners_CT[0][0].grad, wanted)
    for coefficient, corner in zip((0.2, 0.3, 0.5), corners_CT, strict=True):
        torch.testing.assert_close(corner[1].grad, torch.full((2,), coefficient))


def test_corners_of_zeros_have_no_angle():
    corners_CT = [[torch.zeros(3, requires_grad=True)], [torch.ones(3, requires_grad=True)]]
    for pulled in ({0}, set()):
        cosine, _ = blend_together((0.5, 0.5), corners_CT, (0, 1), chunked(corners_CT[0], pulled))
        cosine.backward()
        assert bool(cosine.isnan()) == bool(pulled)


def test_a_value_that_a_pass_was_given_does_not_outlive_it():
    model: Any = network()
    method = prepared(model)
    method.before_step(0, 1, torch.Generator().manual_seed(5))
    method.passes(0)[0]()  # outside of a pass nothing is kept
    set_level(model, at=0.0)
    with parametrize.cached():
        assert torch.equal(model[0].weight, model[0].parametrizations.weight.original)
    with parametrize.cached():
        method.passes(0)[0]()
        assert not torch.equal(model[0].weight, model[0].parametrizations.weight.original)
    assert torch.equal(model[0].weight, model[0].parametrizations.weight.original)


def test_a_point_that_moves_before_the_backward_pass_is_seen():
    model: Any = network()
    prepared(model)
    set_level(model, at=0.25)
    loss = model[0].weight.sum()
    set_level(model, at=0.75)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

"""LCS by quantisation: which bits are drawn, when inputs are quantised, and what the trainer makes of it."""

import copy

import pytest
import timm
import torch
from tests.weights.lcs_nets import assert_resumes_to_the_same_bits, images, network, prepared, same, steps, train
from torch import nn
from torch.nn.utils import parametrize

from buttress.errors import ModelError, SettingsError
from buttress.models.packed import Affine, write_packed
from buttress.models.packed_reader import unpack
from buttress.training.ema import Ema
from buttress.training.settings import EngineSettings
from buttress.weights.interpolation import Interpolated
from buttress.weights.lcs import Lcs
from buttress.weights.levels import set_level
from buttress.weights.quantise import FakeQuantise, QuantisedInput, QuantisedWeight
from buttress.weights.settings import LcsSettings

KINDS = ("point", "line")
INNER = (3, 6, 11)


def drawn(model):
    """Bits of the weights and of the inputs of each layer."""
    weights = [module.bits for module in model.modules() if isinstance(module, QuantisedWeight)]
    inputs = [module.bits for module in model.modules() if isinstance(module, QuantisedInput)]
    assert weights == inputs
    return weights


def active(model):
    return {module.active for module in model.modules() if isinstance(module, QuantisedInput)}


def calibrated(model, method, x):
    """As after a few steps of training with quantised inputs."""
    model.train()
    for _ in steps(method, 10, first=7):
        with torch.no_grad():
            model(x + 0.1 * torch.randn_like(x))
    method.before_evaluation(model, [], last=True)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_the_network_are_not_quantised(kind):
    model = network()
    prepared(model, level="bits", kind=kind)
    for number, layer in enumerate(model):
        inner = number in INNER
        assert isinstance(getattr(layer, "input_grid", None), QuantisedInput) == inner
        if inner:
            assert isinstance(layer.parametrizations.weight[-1], QuantisedWeight)
    set_level(model, bits=3)
    assert max(len(model[number].weight.unique()) for number in INNER) <= 8 < len(model[0].weight.unique())


def test_a_point_has_all_bits_until_inputs_are_quantised_and_then_each_layer_its_own():
    model = network()
    method = prepared(model, level="bits", low=2, high=6, warmup=0.4)
    late = []
    for step in steps(method):
        bits = drawn(model)
        assert active(model) == {step >= 400}
        if step < 400:
            assert bits == [6, 6, 6]
        else:
            late.append(bits)
    counts = torch.tensor(late).flatten().bincount(minlength=7)[2:] / (3 * 600)
    assert (counts - 0.2).abs().max() < 0.05
    assert sum(len(set(bits)) > 1 for bits in late) > 400


def test_bits_follow_the_place_on_the_line():
    model = network()
    method = prepared(model, level="bits", kind="line", warmup=0.5)
    lines = [module for module in model.modules() if isinstance(module, Interpolated)]
    assert len(lines) == len(list(network().parameters()))
    seen = []
    for step in steps(method, 1000):
        (bits,) = set(drawn(model))
        assert active(model) == {step >= 500}
        for line in lines:
            assert line.coefficients[1].item() == pytest.approx((bits - 2) / 6)
        seen.append(bits)
    assert set(seen) == set(range(3, 9))
    counts = torch.tensor(seen).bincount(minlength=9)[3:] / 1000
    assert (counts - 1 / 6).abs().max() < 0.05
    for bits in range(3, 9):
        set_level(model, bits=bits)
        assert set(drawn(model)) == {bits}
        assert lines[0].coefficients.tolist() == pytest.approx([1 - (bits - 2) / 6, (bits - 2) / 6])


def test_a_line_blends_before_it_quantises():
    model = network()
    prepared(model, level="bits", kind="line")
    set_level(model, bits=4)
    listed = model[3].parametrizations.weight
    blended = 2 / 3 * listed.original.detach().double() + 1 / 3 * listed[0].others[0].detach().double()
    low, high = min(blended.min().item(), 0), max(blended.max().item(), 0)
    scale = (high - low) / 15
    zero = max(-8, min(7, round(-8 - low / scale)))
    wanted = ((blended / scale).round() + zero).clamp(-8, 7).sub(zero).mul(scale)
    torch.testing.assert_close(model[3].weight.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tiny", "test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_materialised_level_has_the_same_logits_and_is_plain(kind, name, bits, norm):
    model = network() if name == "tiny" else timm.create_model(name, num_classes=5)
    lost = () if norm == "batch" else ("running", "num_batches")
    plain = {name for name in model.state_dict() if not any(part in name for part in lost)}
    method = prepared(model, level="bits", kind=kind, warmup=0.5, norm=norm)
    x = images(4, 6 if name == "tiny" else 32)
    calibrated(model, method, x)
    method.before_evaluation(model, [x, x + 1], last=True)
    set_level(model, bits=bits)
    with torch.no_grad():
        before = model(x)
        encodings = method.encodings(model)
        method.materialise(model)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    constants = {name for name in model.state_dict() if ".input_grid." in name}
    assert set(model.state_dict()) == plain | constants
    assert {name.partition(".input_grid")[0] for name in constants} == {name[:-7] for name in encodings}
    assert not any(map(parametrize.is_parametrized, model.modules()))
    for name, (depth, scale, zero_point) in encodings.items():
        weight, numbers = model.state_dict()[name], torch.tensor(scale)
        q = (weight / numbers).round() + zero_point
        assert depth == bits and -(2 ** (bits - 1)) <= q.min() and q.max() <= 2 ** (bits - 1) - 1
        assert torch.equal((q - zero_point) * numbers, weight)


def test_a_materialised_network_can_be_exported():
    model = network()
    method = prepared(model, level="bits", kind="line", warmup=0.0)
    x = images()
    calibrated(model, method, x)
    set_level(model, bits=4)
    method.materialise(model)
    with torch.no_grad():
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=1e-5)
    assert sum(isinstance(module, FakeQuantise) for module in model.modules()) == 3


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_a_packed_file_holds_the_bits_of_every_weight(tmp_path, bits):
    model = network()
    method = prepared(model, level="bits", kind="line", low=1, warmup=0.0)
    calibrated(model, method, images())
    set_level(model, bits=bits)
    entries = method.packed(model)
    assert {name for name, entry in entries.items() if isinstance(entry, Affine)} == {f"{n}.weight" for n in INNER}
    assert {entries[f"{n}.weight"].bits for n in INNER} == {bits}
    write_packed(tmp_path / "packed.safetensors", entries)
    read = unpack(tmp_path / "packed.safetensors")
    method.materialise(model)
    assert read.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert read[name].numpy().tobytes() == value.contiguous().numpy().tobytes(), name


def test_before_inputs_have_ranges_they_pass():
    model = network()
    method = prepared(model, level="bits", high=8, warmup=0.5)
    for _ in steps(method, 10):
        break
    with torch.no_grad():
        model(images())
        method.before_evaluation(model, [], last=False)
        before = model.eval()(images())
        method.materialise(model)
        assert not any(isinstance(module, FakeQuantise) for module in model.modules())
        torch.testing.assert_close(model(images()), before, rtol=0, atol=1e-5)


def test_levels():
    def shown(**settings):
        return tuple(map(str, Lcs(LcsSettings(level="bits", **settings)).levels()))

    assert shown() == ("bits=8", "bits=7", "bits=6", "bits=5", "bits=4", "bits=3")
    assert shown(kind="line", low=2, high=3) == ("bits=3", "bits=2")


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_stands_at_its_highest_bits(kind):
    model = network()
    method = prepared(model, level="bits", kind=kind, high=6, warmup=0.0)
    assert drawn(model) == [6, 6, 6]
    calibrated(model, method, images())
    assert drawn(model) == [6, 6, 6]
    if kind == "line":
        assert model[0].parametrizations.weight[0].coefficients.tolist() == [0, 1]


def test_the_pull_is_on_all_layers_weights():
    model = network()
    method = prepared(model, level="bits", kind="line", beta=2.0)
    pairs = [
        (m.parametrizations.weight.original, m.parametrizations.weight[0].others[0]) for m in network_layers(model)
    ]
    one, other = (torch.cat([pair[i].detach().flatten() for pair in pairs]).double() for i in (0, 1))
    wanted = 2 * torch.dot(one, other) ** 2 / (torch.dot(one, one) * torch.dot(other, other))
    assert method.auxiliary_loss(model).item() == pytest.approx(wanted.item(), rel=1e-4)


def network_layers(model):
    return [model[number] for number in (0, *INNER, 13)]


def test_levels_outside_are_refused():
    model = network()
    prepared(model, level="bits", low=4)
    with pytest.raises(SettingsError, match=r"^level bits=3: outside 4\.\.8, what this model was trained for$"):
        set_level(model, bits=3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_acted_on_is_refused(kind):
    model = network()
    prepared(model, level="bits", kind=kind)
    with pytest.raises(ModelError, match=r"^lcs: 3\.weight is parametrized already; a model takes one method"):
        prepared(model, level="bits", kind=kind)
    with pytest.raises(ModelError, match=r"has no layer that it could act on$"):
        prepared(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), level="bits", kind=kind)


def test_a_copy_is_a_model_of_its_own():
    model = network()
    method = prepared(model, level="bits", warmup=0.0)
    twin = copy.deepcopy(model)
    calibrated(model, method, images())
    assert model[3].input_grid.started and not twin[3].input_grid.started
    twin.eval()(images())
    twin[3].input_grid.active = True
    twin.train()(images())
    assert twin[3].input_grid.pending and not model[3].input_grid.pending


def test_ranges_are_taken_over_by_a_moving_average():
    model = network()
    method = prepared(model, level="bits", warmup=0.0)
    average = Ema(model, frozenset(), 0.9)
    calibrated(model, method, images())
    average.update(0)
    held = average.shadow.get_buffer("3.input_grid.running")
    assert torch.equal(held, model[3].input_grid.running) and held.abs().sum() > 0


@pytest.mark.parametrize("stop", [(1, 1), (3, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_gives_the_same_bits(tmp_path, kind, stop):
    assert_resumes_to_the_same_bits(tmp_path, stop, level="bits", kind=kind)


def test_what_the_step_before_a_checkpoint_has_seen_is_not_lost(tmp_path):
    """A checkpoint after every step, and a kill in the midst of an epoch."""
    engine = EngineSettings(checkpoint_minutes=0)
    assert_resumes_to_the_same_bits(tmp_path, (2, 2), level="bits", warmup=0.3, engine=engine)


def test_a_resumed_average_gives_the_same_bits(tmp_path):
    assert_resumes_to_the_same_bits(tmp_path, (2, 2), level="bits", engine=EngineSettings(ema_decay=0.9))


def test_a_training_ends_at_the_highest_bits_and_loads_into_an_attached_model(tmp_path):
    model, _, run = train(tmp_path, level="bits", kind="line")
    assert drawn(model) == [8, 8, 8]
    assert all(model[number].input_grid.started and not model[number].input_grid.pending for number in INNER)
    again = network(5)
    Lcs(LcsSettings(level="bits", kind="line")).attach(again)
    again.load_state_dict(run.weights)
    assert same(again.state_dict(), model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images()), model(images()), rtol=1e-4, atol=1e-5)

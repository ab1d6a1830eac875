"""DKM: against soft k-means written out number by number, Lloyd's step, and every promise of the method."""

import copy
import math
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn
from torch.nn.utils import parametrize

from buttress.errors import ModelError, SettingsError
from buttress.models.packed import sizes, write_packed
from buttress.models.packed_reader import unpack
from buttress.training.ema import Ema
from buttress.weights import soft_kmeans as soft_kmeans_module
from buttress.weights.dkm import Dkm, Palette, coreml_buffers, gap
from buttress.weights.kmeans import nearest
from buttress.weights.settings import DkmSettings
from buttress.weights.soft_kmeans import soft_kmeans

GENERATOR = torch.Generator()


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 5),
    )


def method(**chosen):
    """By default all layers alike, also the last."""
    return Dkm(DkmSettings(**{"min_weights": 50, "classifier_bits": chosen.get("bits", 2), **chosen}))


def prepared(model=None, **chosen):
    model, chosen_method = model or net(), method(**chosen)
    chosen_method.prepare(model)
    return model, chosen_method


def batch(seed=1, count=6):
    return drawn(count, 3, 8, 8, seed=seed, dtype=torch.float32)


def step(model, chosen, optimizer, number=0):
    """One update as the trainer makes it."""
    model.train()
    chosen.before_step(number, 10, GENERATOR)
    with parametrize.cached():
        loss = model(batch(number)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def palettes(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, Palette)}


def naive_soft_kmeans(rows, centroids, temperature, iterations):
    """Of one group, in plain numbers."""
    for _ in range(iterations):
        attention = []
        for row in rows:
            costs = [sum((a - b) ** 2 for a, b in zip(row, c, strict=True)) / temperature for c in centroids]
            odds = [math.exp(min(costs) - cost) for cost in costs]
            attention.append([max(odd / sum(odds), 1e-7) for odd in odds])
        masses = [sum(column) for column in zip(*attention, strict=True)]
        centroids = [
            [
                sum(a[k] * row[d] for a, row in zip(attention, rows, strict=True)) / masses[k]
                for d in range(len(rows[0]))
            ]
            for k in range(len(centroids))
        ]
    return [
        [sum(a * c[d] for a, c in zip(own, centroids, strict=True)) for d in range(len(rows[0]))] for own in attention
    ]


@settings(max_examples=25)
@given(
    groups=st.integers(1, 3),
    rows=st.integers(1, 12),
    entries=st.integers(1, 5),
    dim=st.integers(1, 3),
    iterations=st.integers(1, 4),
    temperature=st.floats(0.01, 10),
)
def test_soft_kmeans_is_that_of_the_formula(groups, rows, entries, dim, iterations, temperature):
    rows_GND, start_GKD = drawn(groups, rows, dim, seed=rows), drawn(groups, entries, dim, seed=7)
    mixed = soft_kmeans(rows_GND, start_GKD, torch.tensor(temperature, dtype=torch.float64), iterations)
    for group in range(groups):
        expected = naive_soft_kmeans(rows_GND[group].tolist(), start_GKD[group].tolist(), temperature, iterations)
        torch.testing.assert_close(mixed[group], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_gradient_goes_through_all_iterations(iterations):
    rows, start = drawn(1, 6, 1).requires_grad_(), torch.tensor([[[-0.5], [0.8]]], dtype=torch.float64)
    temperature = torch.tensor(0.6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda rows: soft_kmeans(rows, start, temperature, iterations), rows)


@pytest.mark.parametrize(("dim", "group", "scaled"), [(1, None, True), (2, None, False), (2, 4, True), (3, 4, False)])
def test_the_gradient_of_a_layer(dim, group, scaled):
    weight = drawn(8, 2, 2)
    chosen = DkmSettings(bits=1, cluster_dim=dim, group_size=group, per_channel_scale=scaled, tau=0.5)
    palette = Palette(weight, chosen, 0)
    palette.start(weight)
    assert torch.autograd.gradcheck(palette, weight.requires_grad_())


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("temperature", [1e-3, 0.3])
def test_chunks_give_the_values_and_gradients_of_the_formula_as_autograd_has_it(monkeypatch, dim, temperature):
    def formula(rows_GND, start_GKD, temperature, iterations):
        for _ in range(iterations):
            distances = (rows_GND[:, :, None] - start_GKD[:, None]).square().sum(-1)
            attention = torch.softmax(-distances / temperature, 2).clamp(min=1e-7)
            start_GKD = attention.mT @ rows_GND / attention.sum(1)[..., None]
        return attention @ start_GKD

    start, temperature = drawn(2, 4, dim, seed=3), torch.tensor(temperature, dtype=torch.float64)
    found = {}
    for way, function, limit in (("whole", soft_kmeans, 2**40), ("chunks", soft_kmeans, 100), ("plain", formula, 0)):
        monkeypatch.setattr(soft_kmeans_module, "CHUNK_ELEMENTS", limit)
        rows = drawn(2, 57, dim).requires_grad_()
        mixed = function(rows, start, temperature, 3)
        (mixed * drawn(2, 57, dim, seed=5)).sum().backward()
        found[way] = mixed.detach(), rows.grad
    torch.testing.assert_close(found["chunks"], found["whole"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["whole"], found["plain"], rtol=1e-8, atol=1e-10)


def test_chunks_keep_no_attention_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(soft_kmeans_module, "CHUNK_ELEMENTS", 6400)
    kept = [0]

    def seen(tensor):
        kept[0] += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        soft_kmeans(drawn(1, 4000, 1).requires_grad_(), drawn(1, 16, 1), torch.tensor(0.1, dtype=torch.float64), 3)
    assert 0 < kept[0] < 4000 * 16, "less than one attention of the three"


def test_an_entry_far_from_every_row_becomes_their_mean():
    rows, far = drawn(1, 50, 1), torch.tensor([[[0.0], [1000.0]]], dtype=torch.float64)
    mixed = soft_kmeans(rows, far, torch.tensor(0.1, dtype=torch.float64), 2)
    torch.testing.assert_close(mixed.mean(), rows.mean(), rtol=1e-6, atol=1e-6)


def test_warmth_leads_to_the_mean_and_cold_to_a_step_of_lloyd():
    rows, start = drawn(1, 200, 1), torch.tensor([[[-1.0], [0.0], [1.5]]], dtype=torch.float64)
    warm = soft_kmeans(rows, start, torch.tensor(1e9, dtype=torch.float64), 1)
    torch.testing.assert_close(warm, rows.mean().expand_as(rows), rtol=1e-6, atol=1e-6)
    cold = soft_kmeans(rows, start, torch.tensor(1e-7, dtype=torch.float64), 1)
    owner = (rows[0] - start[0, :, 0]).abs().argmin(1)
    means = torch.stack([rows[0, owner == k].mean(0) for k in range(3)])
    torch.testing.assert_close(cold[0], means[owner], rtol=1e-5, atol=1e-5)


@settings(max_examples=40)
@given(
    channels=st.integers(1, 12),
    inputs=st.integers(1, 5),
    kernel=st.integers(1, 2),
    dim=st.integers(1, 4),
    group=st.none() | st.integers(1, 13),
    axis=st.integers(0, 1),
)
def test_rows_are_neighbouring_output_channels_and_the_rest_stays(channels, inputs, kernel, dim, group, axis):
    weight = drawn(channels, inputs, kernel)
    size = next(s for s in range(min(group or channels, channels), channels + 1) if channels % s == 0)
    if group is not None:
        whole = [s for s in range(size, channels + 1) if channels % s == 0 and s % dim == 0]
        size = min(whole, default=size)
    flat = [[float(weight[o, i, k]) for i in range(inputs) for k in range(kernel) for o in range(start, start + size)]
            for start in range(0, channels, size)]  # fmt: skip
    count = len(flat[0]) // dim
    if count == 0:
        return
    oriented = weight.movedim(0, axis)
    palette = Palette(oriented, DkmSettings(bits=1, cluster_dim=dim, group_size=group), axis)
    rows_GND, left_GT = palette.split(oriented)
    assert rows_GND.flatten(1).tolist() == [numbers[: count * dim] for numbers in flat]
    assert left_GT.tolist() == [numbers[count * dim :] for numbers in flat]
    assert palette.centroids.shape == (channels // size, 2, dim)
    torch.testing.assert_close(palette._joined(rows_GND, left_GT, oriented), oriented, rtol=0, atol=0)


def test_evaluation_is_the_nearest_entry_and_training_is_not():
    model, _ = prepared(bits=2)
    weight = model[3].parametrizations.weight.original.detach()
    entries = palettes(model)["3.parametrizations.weight.0"].centroids.flatten()
    assert model.train()[3].weight.unique().numel() > 4
    hard = model.eval()[3].weight
    assert hard.unique().numel() == 4
    expected = [entries[(entries - number).abs().argmin()] for number in weight.flatten()]
    assert hard.flatten().tolist() == [float(entry) for entry in expected]


def test_a_scale_is_divided_out_and_multiplied_back():
    model = net()
    with torch.no_grad():
        model[3].weight[3] *= 100
        model[3].weight[5] = 0
    weight = model[3].weight.detach().clone()
    model, _ = prepared(model, bits=4, per_channel_scale=True)
    palette = palettes(model)["3.parametrizations.weight.0"]
    largest = weight.abs().amax((1, 2, 3))
    largest[5] = 1
    torch.testing.assert_close(palette.scale, largest, rtol=0, atol=0)
    hard = model.eval()[3].weight.detach()
    off = ((hard - weight).flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1))[largest != 1]
    assert float(off.max()) < 0.15 and float(off[3]) < 0.15, "one channel a hundred times as large costs no other"
    torch.testing.assert_close(hard[5], torch.zeros_like(hard[5]), rtol=0, atol=0.02)


def test_the_temperature_is_in_units_of_the_rows_variance():
    model, _ = prepared(tau=0.5, cluster_dim=2)
    weight = model[7].parametrizations.weight.original.detach().double().T.reshape(-1, 2)  # [inputs, outputs]
    variance = sum(float(column.var(correction=0)) for column in weight.T)
    assert float(palettes(model)["7.parametrizations.weight.0"].temperature) == pytest.approx(0.5 * variance, rel=1e-5)


@pytest.mark.parametrize(("bits", "dim", "tau"), [(1, 1, 0.16), (2, 1, 0.04), (2, 2, 0.08), (4, 1, 0.0025)])
def test_a_finer_palette_is_harder_where_nothing_is_said(bits, dim, tau):
    assert DkmSettings(bits=bits, cluster_dim=dim).softness == pytest.approx(tau)
    assert DkmSettings(bits=bits, cluster_dim=dim, tau=3).softness == 3
    with pytest.raises(SettingsError, match=r"dkm\.tau = 0: must be above 0"):
        DkmSettings(tau=0)


def test_two_bits_are_a_twelfth_of_the_file():
    torch.manual_seed(0)
    model: Any = timm.create_model("test_resnet", num_classes=100)
    assert sum(parameter.numel() for parameter in model.parameters()) == 382_388
    whole = len(save(model.state_dict()))
    trained = Dkm(DkmSettings())
    trained.prepare(model)
    said = sizes(trained.packed(model))
    assert 12 * said.file <= whole
    clustered = [module.weight.numel() for module in model.modules() if parametrize.is_parametrized(module, "weight")]
    assert clustered[-1] == 9600, "the classifier, which has 4 bits"
    assert (said.indices, said.palettes) == ((sum(clustered) + 9600) // 4, 16 * len(clustered) + 48)


def test_large_layers_of_all_kinds_are_clustered_and_parameters_live_on():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(4, 8, 3),
            "up": nn.ConvTranspose2d(6, 4, 3),
            "norm": nn.LayerNorm(500),
            "small": nn.Linear(5, 10),
            "head": nn.Linear(12, 8),
        }
    )
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    prepared(model, group_size=2)
    found = palettes(model)
    assert [name.split(".")[0] for name in found] == ["conv", "up", "head"]
    assert {palette.centroids.shape[0] for palette in found.values()} == {4, 2}
    after = {name.replace("parametrizations.weight.original", "weight"): id(p) for name, p in model.named_parameters()}
    assert after == before


def test_a_step_follows_the_weights_from_the_stored_palette():
    model, chosen = prepared(bits=1, tau=0.3)
    palette, weight = palettes(model)["7.parametrizations.weight.0"], model[7].parametrizations.weight.original
    before = palette.centroids.clone()
    with torch.no_grad():
        weight += 0.05
    chosen.before_step(0, 10, GENERATOR)
    distances = (weight.detach().reshape(-1, 1) - before.reshape(1, 2)).square()
    attention = (-distances / palette.temperature).softmax(1).clamp(min=1e-7)
    expected = (attention * weight.detach().reshape(-1, 1)).sum(0) / attention.sum(0)
    torch.testing.assert_close(palette.centroids.flatten(), expected, rtol=1e-5, atol=1e-6)
    stored = palette.centroids.clone()
    model.train()(batch())
    model.eval()(batch())
    assert torch.equal(palette.centroids, stored), "a forward writes nothing"


def test_equal_entries_part():
    model, chosen = prepared(bits=2)
    palette = palettes(model)["3.parametrizations.weight.0"]
    palette.centroids.fill_(0.01)
    for number in range(4):
        chosen.before_step(number, 10, GENERATOR)
    assert palette.centroids.unique().numel() == 4


def test_a_training_goes_on_bit_by_bit_from_a_state_dict():
    chosen = {"bits": 2, "cluster_dim": 2, "per_channel_scale": True, "group_size": 4}
    model, first = prepared(**chosen)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for number in range(2):
        step(model, first, optimizer, number)
    state = copy.deepcopy(model.state_dict())
    for number in range(2, 4):
        step(model, first, optimizer, number)
    resumed, second = net(seed=5), method(**chosen)
    second.attach(resumed)
    resumed.load_state_dict(state)
    optimizer = torch.optim.SGD(resumed.parameters(), 0.1)
    for number in range(2, 4):
        step(resumed, second, optimizer, number)
    for name, value in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_training_brings_the_hard_weights_nearer_to_the_task():
    model, chosen = prepared(bits=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for _ in range(8):
        step(model, chosen, optimizer, 0)
        losses.append(float(model.eval()(batch(0)).detach().square().mean()))
    assert losses[-1] < 0.7 * losses[0]
    assert not any("0.centroids" in name for name, _ in model.named_parameters()), "a palette is no parameter"


def test_a_moving_average_has_a_palette_of_its_own_weights():
    model = net()
    plain = frozenset(name for name, _ in model.named_buffers())
    model, chosen = prepared(model)
    average = Ema(model, plain, 0.9)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for number in range(3):
        step(model, chosen, optimizer, number)
        average.update(number)
    own = copy.deepcopy(model.state_dict())
    with average.in_place():
        assert not torch.equal(model[3].parametrizations.weight.original, own["3.parametrizations.weight.original"])
        chosen.before_evaluation(model, [batch()], last=False)
        weight, palette = (
            model[3].parametrizations.weight.original.detach(),
            palettes(model)["3.parametrizations.weight.0"],
        )
        owner = nearest(weight.reshape(-1, 1), palette.centroids[0])
        means = [float(weight.flatten()[owner == k].mean()) for k in range(4)]
        assert palette.centroids.flatten().tolist() == pytest.approx(means, rel=1e-3)
        hard = model.eval()[3].weight
        assert set(hard.unique().tolist()) == set(palette.centroids.flatten().tolist())
    for name, value in own.items():
        assert torch.equal(model.state_dict()[name], value), name


def test_before_an_evaluation_batch_statistics_are_those_of_the_hard_weights():
    model, chosen = prepared(bits=1)
    images = [batch(seed) for seed in range(4)]
    chosen.before_evaluation(model.train(), iter(images), last=True)
    assert model.training
    with torch.no_grad():
        maps = [nn.functional.conv2d(image, model.eval()[0].weight, padding=1) for image in images]
    means = torch.stack([one.mean((0, 2, 3)) for one in maps]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chosen", [{}, {"cluster_dim": 3, "group_size": 4}, {"bits": 3, "per_channel_scale": True}])
def test_materialised_is_plain_with_the_same_logits(chosen):
    model, trained = prepared(**chosen)
    step(model, trained, torch.optim.SGD(model.parameters(), 0.1))
    logits = model.eval()(batch())
    model.train()
    trained.materialise(model)
    assert model.state_dict().keys() == net().state_dict().keys()
    assert not palettes(model)
    torch.testing.assert_close(model.eval()(batch()), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "chosen",
    [
        {"bits": 1},
        {"bits": 5, "group_size": 3},
        {"cluster_dim": 5, "bits": 3},
        {"cluster_dim": 2, "group_size": 4, "per_channel_scale": True},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_packed_file_is_the_materialised_state_dict_to_the_bit(tmp_path, chosen, dtype):
    model = nn.Sequential(net(), nn.ConvTranspose2d(10, 6, 3)).to(dtype)
    model, trained = prepared(model, **chosen)
    write_packed(tmp_path / "x.safetensors", trained.packed(model))
    trained.materialise(model)
    unpacked, expected = unpack(tmp_path / "x.safetensors"), model.state_dict()
    assert unpacked.keys() == expected.keys()
    for name, value in expected.items():
        assert unpacked[name].dtype == value.dtype, name
        torch.testing.assert_close(unpacked[name], value, rtol=0, atol=0, equal_nan=True)


def test_a_lone_layer_has_a_name_too(tmp_path):
    model, trained = prepared(nn.Linear(20, 10))
    assert trained.packed(model).keys() == {"weight", "bias"}
    assert "_COREML_/weight/lut" in coreml_buffers(model)
    trained.materialise(model)
    assert model.weight.unique().numel() == 4


@pytest.mark.parametrize(("dim", "group", "scaled"), [(1, None, False), (1, 4, True), (2, None, True), (2, 4, False)])
def test_core_ml_rebuilds_the_weight_from_its_buffers(dim, group, scaled):
    model, trained = prepared(cluster_dim=dim, group_size=group, per_channel_scale=scaled)
    buffers, layers = coreml_buffers(model), {"0": 8, "3": 12}
    if dim == 1:
        layers["7"] = 5
    packed = trained.packed(model)
    trained.materialise(model)
    assert int(buffers.pop("_COREML_/metadata_version")) == 1
    assert {name.split(".")[0] for name in buffers} == set(layers)
    for layer, channels in layers.items():
        weight = model.get_submodule(layer).weight.detach()
        lut = buffers[f"{layer}._COREML_/weight/lut"]
        groups = 1 if group is None or layer == "7" else channels // 4
        assert lut.shape == (groups, *[1] * (weight.ndim - 1), 4, dim)
        assert buffers[f"{layer}._COREML_/weight/compression_type"].tolist() == [2]
        assert (f"{layer}._COREML_/weight/vector_axis" in buffers) == (dim > 1)
        assert int(buffers.get(f"{layer}._COREML_/weight/vector_axis", torch.tensor(0))) == 0
        assert (f"{layer}._COREML_/weight/palettization_scale" in buffers) == scaled
        scale = buffers.get(f"{layer}._COREML_/weight/palettization_scale", torch.ones([1] * weight.ndim))
        assert scale.shape in {(1,) * weight.ndim, (channels, *[1] * (weight.ndim - 1))}
        # [places of a group, inputs, kernel] in the order of a Core ML table of indices
        indices = packed[f"{layer}.weight"].indices_GN.long()
        rebuilt = torch.zeros_like(weight).flatten(1)
        run, inner = channels // groups // dim, rebuilt.shape[1]
        for vector in range(channels // dim):
            for place in range(inner):
                index = indices[vector // run, place * run + vector % run]
                rebuilt[vector * dim : (vector + 1) * dim, place] = lut.reshape(groups, 4, dim)[vector // run, index]
        torch.testing.assert_close(rebuilt.reshape(weight.shape) * scale, weight, rtol=0, atol=0)


def test_the_gap_is_that_of_soft_and_hard_weights():
    model, _ = prepared(tau=0.2)
    said = gap(model)
    assert list(said) == ["0", "3", "7"]
    soft, hard = model.train()[3].weight.detach(), model.eval()[3].weight.detach()
    expected = (soft - hard).square().mean().sqrt() / hard.square().mean().sqrt()
    assert said["3"] == pytest.approx(float(expected), rel=1e-5) and said["3"] > 0.01
    cold, _ = prepared(tau=1e-6)
    assert max(gap(cold).values()) < 1e-3


def test_half_precision_around_it_changes_nothing():
    model, _ = prepared()
    model.train()
    expected = model[3].weight
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model[3].weight, expected, rtol=0, atol=0)


def test_what_it_cannot_do_is_refused():
    model, chosen = prepared()
    with pytest.raises(ModelError, match=r"0\.weight is parametrized already"):
        chosen.prepare(model)
    with pytest.raises(ModelError, match=r"has no weight of more than 10,000 numbers; lower --dkm\.min_weights"):
        method(min_weights=10_000).prepare(net())
    model = net()
    nn.init.zeros_(model[3].weight)
    with pytest.raises(ModelError, match=r"3\.weight is the same everywhere; start from trained weights"):
        method().prepare(model)
    model = net()
    model[3].weight.data[0] = math.nan
    with pytest.raises(ModelError, match=r"3\.weight is not finite; start from sound weights"):
        method().prepare(model)
    for act in (gap, coreml_buffers, method().packed):
        with pytest.raises(ModelError, match="no palettes; prepare it by Dkm first"):
            act(net())


def test_rows_that_are_all_alike_have_a_gradient():
    model: Any = nn.Sequential(nn.Linear(8, 4, bias=False))
    method = Dkm(DkmSettings(bits=1, cluster_dim=4, group_size=4, min_weights=0, classifier_bits=1))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(4, 1).expand(4, 8))
    method.prepare(model)
    model.train()(torch.randn(2, 8)).sum().backward()
    assert torch.isfinite(model[0].parametrizations.weight.original.grad).all()


def test_a_layer_of_less_than_a_row_stays_and_levels_are_none():
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(40, 4))
    chosen = method(min_weights=0, cluster_dim=8)
    chosen.prepare(model)
    assert list(palettes(model)) == ["1.parametrizations.weight.0"]
    assert chosen.levels() == () and chosen.name == "dkm" and chosen.auxiliary_loss(model) is None
    assert len(chosen.passes(0)) == 1

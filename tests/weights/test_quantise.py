"""Fake quantisation against the formula in plain Python, number by number."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from buttress.errors import SettingsError
from buttress.weights.quantise import (
    FakeQuantise,
    QuantisedInput,
    QuantisedWeight,
    grid_of,
    make_inputs_constant,
    quantise_input,
    range_of,
)


def naive(values, bits, low, high):
    """Integers from -2^(b-1) to 2^(b-1) - 1 with a zero point."""
    smallest, largest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = (high - low) / (largest - smallest)
    if scale == 0:
        return [0.0 for _ in values]
    zero = max(smallest, min(largest, round(smallest - low / scale)))
    return [(max(smallest, min(largest, round(value / scale) + zero)) - zero) * scale for value in values]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shift", [0.0, 0.7, -5.0, 5.0])
def test_weights_are_on_the_grid_of_their_range(bits, shift):
    weight = torch.randn(6, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + shift
    values = weight.flatten().tolist()
    wanted = naive(values, bits, min(*values, 0.0), max(*values, 0.0))
    got = QuantisedWeight(bits, 1, 8)(weight)
    torch.testing.assert_close(got.flatten(), torch.tensor(wanted, dtype=torch.float64))
    assert len(got.unique()) <= 2**bits
    if shift == 0:
        assert (got == 0).any()


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30), st.integers(1, 8))
def test_values_stay_within_a_step_and_a_half_of_what_they_were(values, bits):
    weight = torch.tensor(values)
    grid = grid_of(range_of(weight), bits)
    got = QuantisedWeight(bits, 1, 8)(weight)
    assert (got - weight).abs().max() <= 1.01 * grid.scale + 1e-6
    assert grid.lowest <= 0 <= grid.highest
    assert int(grid.highest - grid.lowest) in (2**bits - 1, 0)
    assert len(got.unique()) <= 2**bits


def test_three_bits_have_eight_values():
    assert len(QuantisedWeight(3, 3, 8)(torch.linspace(-1, 0.9, 1000)).unique()) == 8


def test_zeros_stay_zeros_and_an_empty_range_gives_zeros():
    assert (QuantisedWeight(4, 1, 8)(torch.zeros(3, 3)) == 0).all()
    assert (FakeQuantise(grid_of(torch.zeros(2), 4))(torch.tensor([5.0, -3.0, 0.0])) == 0).all()


def test_the_gradient_is_that_of_the_identity_also_outside_the_range():
    x = torch.tensor([-3.0, 0.2, 9.0], requires_grad=True)
    given_to = started(0.0, 1.0)
    y = given_to.eval()(x)
    assert y.tolist() == pytest.approx([0, 0.2, 1], abs=1e-6)
    (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1, 2, 3]
    weight = torch.randn(4, requires_grad=True)
    QuantisedWeight(2, 1, 8)(weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [1, 1, 1, 1]


def started(low, high, bits=8):
    grid = QuantisedInput(bits, 3, 8, torch.device("cpu"))
    grid.running.copy_(torch.tensor([low, high]))
    grid.started.fill_(True)
    return grid


def test_a_running_range_is_the_average_of_the_steps_and_begins_at_the_first():
    grid = QuantisedInput(8, 3, 8, torch.device("cpu")).train()
    grid.active = True
    generator, running = torch.Generator().manual_seed(0), (0.0, 0.0)
    for step in range(5):
        x = torch.randn(40, generator=generator)
        low, high = min(x.tolist()), max(x.tolist())
        running = (0.9 * running[0] + 0.1 * low, 0.9 * running[1] + 0.1 * high) if step else (low, high)
        torch.testing.assert_close(grid(x), torch.tensor(naive(x.tolist(), 8, *running)), rtol=1e-4, atol=1e-5)
        grid.fold()
        assert grid.running.tolist() == pytest.approx(running, rel=1e-5)
    grid.eval()
    torch.testing.assert_close(grid(x), torch.tensor(naive(x.tolist(), 8, *running)), rtol=1e-4, atol=1e-5)


def test_a_forward_is_pure():
    grid = started(-1.0, 1.0).train()
    grid.active = True
    x = 3 * torch.randn(30, generator=torch.Generator().manual_seed(2))
    first = grid(x)
    state = {name: value.clone() for name, value in grid.state_dict().items()}
    assert torch.equal(grid(x), first)
    assert all(torch.equal(state[name], value) for name, value in grid.state_dict().items())
    assert grid.running.tolist() == [-1, 1]
    grid.fold()
    once = grid.running.tolist()
    grid.fold()
    assert grid.running.tolist() == once != [-1, 1]
    grid.eval()(10 * x)
    grid.fold()
    assert grid.running.tolist() == once


def test_micro_batches_are_one_input():
    x = torch.randn(40, generator=torch.Generator().manual_seed(2))
    whole, parts = (started(-1.0, 1.0).train() for _ in range(2))
    whole.active = parts.active = True
    whole(x)
    for part in x.split(10):
        parts(part)
    whole.fold()
    parts.fold()
    assert torch.equal(whole.running, parts.running)


def test_it_lets_pass_until_it_is_active_and_in_evaluation_until_it_has_a_range():
    grid = QuantisedInput(3, 3, 8, torch.device("cpu"))
    x = torch.randn(10)
    assert grid.train()(x) is x and grid.eval()(x) is x
    grid.fold()
    assert not grid.started
    assert not torch.equal(started(-1.0, 1.0, 3).eval()(x), x)


def test_levels_have_a_range_and_are_whole():
    weight = QuantisedWeight(8, 3, 8)
    weight.set_level((4.0,), nn.Module())
    assert weight.bits == 4
    with pytest.raises(SettingsError, match=r"^level bits=2: outside 3\.\.8, what this model was trained for$"):
        weight.set_level((2.0,), nn.Module())
    with pytest.raises(SettingsError, match=r"^level bits=4\.5: bits are whole numbers$"):
        weight.set_level((4.5,), nn.Module())


def test_constants_take_the_place_of_ranges():
    known, unknown = nn.Linear(6, 4), nn.Linear(4, 2)
    quantise_input(known, started(-2.0, 1.5, 4))
    quantise_input(unknown, QuantisedInput(4, 3, 8, torch.device("cpu")))
    model = nn.Sequential(known, unknown).eval()
    x = torch.randn(5, 6)
    with torch.no_grad():
        before = model(x)
        wanted = torch.tensor(naive(x.flatten().tolist(), 4, -2.0, 1.5)).view_as(x)
        torch.testing.assert_close(before, unknown(nn.functional.linear(wanted, known.weight, known.bias)))
        make_inputs_constant(model)
        assert torch.equal(model(x), before)
    assert [type(module) for module in model.modules()][2:] == [FakeQuantise, nn.Linear]
    assert not unknown._forward_pre_hooks

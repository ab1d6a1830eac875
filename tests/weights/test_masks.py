"""Masks against a count and a sort of plain Python."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from buttress.errors import SettingsError
from buttress.weights.masks import TopK, kept, zeros_at


def naive(weight, keep):
    """Sort by magnitude; zero the first int((1 - keep) * count)."""
    values = weight.flatten().tolist()
    order = sorted(range(len(values)), key=lambda i: abs(values[i]))
    drop = set(order[: int((1 - keep) * len(values))])
    return torch.tensor([i not in drop for i in range(len(values))]).view_as(weight)


@pytest.mark.parametrize("keep", [1, 0.9, 0.5, 0.1, 0.025])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_smallest_magnitudes_are_dropped(keep, dtype, layout):
    weight = torch.randn(8, 5, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(3)).to(memory_format=layout)
    assert torch.equal(kept(weight, keep), naive(weight, keep))


def test_half_precision_and_other_dimensions():
    for weight in (torch.linspace(-1, 2, 100, dtype=torch.bfloat16), torch.linspace(-1, 2, 60).half().view(5, 12)):
        assert torch.equal(kept(weight, 0.5), weight.abs() >= weight.abs().flatten().sort().values[weight.numel() // 2])


@given(st.floats(0.001, 1), st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40))
def test_never_more_are_dropped_than_asked_for_and_only_the_smallest(keep, values):
    weight = torch.tensor(values)
    mask = kept(weight, keep)
    dropped = int((~mask).sum())
    assert dropped <= int((1 - keep) * len(values)) and bool(mask.any())
    if len({abs(value) for value in values}) == len(values):
        assert dropped == min(int((1 - keep) * len(values)), len(values) - 1)
    if dropped:
        assert weight[~mask].abs().max() < weight[mask].abs().min()


def test_the_count_is_truncated_in_floating_point():
    assert zeros_at(0.9, 100) == 9
    assert [zeros_at(keep, 1000) for keep in (1, 0.5, 0.1, 0.025)] == [0, 500, 900, 975]
    assert zeros_at(1e-20, 7) == 6


def test_equal_magnitudes_are_kept_together():
    assert kept(torch.tensor([1.0, -2.0, 2.0, 2.0, 3.0]), 0.4).tolist() == [False, True, True, True, True]
    assert kept(torch.ones(10), 0.1).all()


def test_what_is_not_a_number_stays_and_is_seen():
    assert kept(torch.tensor([1.0, float("nan"), -float("inf"), 0.5]), 0.5).tolist() == [False, True, True, False]


def test_gradients_flow_to_the_kept_alone():
    weight = torch.tensor([0.1, -3.0, 0.2, 2.0], dtype=torch.float64, requires_grad=True)
    mask = TopK(0.5, 0.1, 1.0)
    assert torch.autograd.gradcheck(mask, weight)
    mask(weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [0, 1, 0, 1]


def test_at_one_it_is_the_weight_itself():
    weight = nn.Parameter(torch.randn(4))
    assert TopK(1.0, 0.1, 1.0)(weight) is weight


def test_levels_have_a_range():
    mask = TopK(1.0, 0.1, 0.8)
    mask.set_level((0.1,), nn.Module())
    assert mask.keep == 0.1
    with pytest.raises(
        SettingsError, match=r"^level keep=0\.05: outside 0\.1\.\.0\.8, what this model was trained for$"
    ):
        mask.set_level((0.05,), nn.Module())


def test_a_dropped_weight_is_a_zero_without_a_sign():
    dropped = TopK(0.5, 0.1, 1.0)(-torch.arange(1.0, 5.0))
    assert dropped.tolist() == [0, 0, -3, -4]
    assert not torch.signbit(dropped[:2]).any()

"""What was exported is compared with the run, and a difference is not let through."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from buttress.errors import ModelError
from buttress.export.agreement import require_agreement


def a_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 5)).train()


def test_equal_networks_agree_and_stay_as_they_were():
    network = a_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seen = []

    def other(images):
        seen.append(len(images))
        return network(images) * (1 + 1e-6)

    require_agreement(network, other, 4, "other")
    assert seen == [1, 3]
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda logits: logits * 1.001,
        lambda logits: logits * torch.nan,
        lambda logits: logits + torch.eye(3, 5)[: len(logits)] * 0.01,
        lambda logits: logits if len(logits) == 1 else logits.flip(0),
        lambda logits: logits[:, :4],
    ],
)
def test_other_logits_are_refused(wrong):
    network = a_network()
    with pytest.raises(ModelError, match="other gives"):
        require_agreement(network, lambda images: wrong(network(images)), 4, "other")


def test_networks_that_round_may_differ_more():
    network = a_network()
    with pytest.raises(ModelError, match="1e-04 allowed"):
        require_agreement(network, lambda images: network(images) * 1.001, 4, "other")
    require_agreement(network, lambda images: network(images) * 1.001, 4, "other", tolerance=0.01)

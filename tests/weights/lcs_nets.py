"""A tiny network for LCS, and what its tests do to it."""

import pytest
import torch
from tests.training.tiny import CLASSES, Folder, Loader
from torch import nn

from buttress.training.engine import fit
from buttress.training.rng import seed_everything
from buttress.training.settings import EngineSettings, TrainingSettings
from buttress.weights.lcs import Lcs
from buttress.weights.settings import LcsSettings


def network(seed=0):
    """A stem, a pointwise and a depthwise convolution, a hidden layer and a classifier; 6 px images."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, CLASSES)),
    )


def prepared(model, *, pretrained=False, **settings):
    method = Lcs(LcsSettings(**settings), pretrained=pretrained)
    torch.manual_seed(1)
    method.prepare(model)
    return method


def images(count=4, size=6):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def train(path, *, loader=None, resume=False, engine=None, **settings):
    """Four epochs of three steps of the tiny network; the method is dense, or alike, in the first six steps."""
    seed_everything(0)
    model, method = network(), Lcs(LcsSettings(**{"warmup": 0.5, **settings}))
    asked = TrainingSettings(epochs=4, batch=4, lr=0.01, precision="fp32", engine=engine or EngineSettings())
    run = Folder(path)
    history = fit(
        model, loader or Loader(), asked, run=run, methods=(method,), val_loader=Loader(soft=False), resume=resume
    )
    return model, history, run


def assert_resumes_to_the_same_bits(path, stop, **settings):
    """A training that is killed at (epoch, step) and goes on gives what one that is not killed gives."""
    straight, history, run = train(path / "a", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(path / "b", loader=Loader(die_at=stop), **settings)
    torch.rand(3)
    resumed, again, second = train(path / "b", resume=True, **settings)
    assert same(straight.state_dict(), resumed.state_dict())
    assert same(run.weights, second.weights)
    assert again.step_losses and again.step_losses == history.step_losses[-len(again.step_losses) :]
    assert [each.val for each in again.epochs] == [each.val for each in history.epochs]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def steps(method, total=1000, first=0):
    """Before each step from `first` on; what is drawn can be looked at then."""
    generator = torch.Generator()
    for step in range(first, total):
        generator.manual_seed(step)
        method.before_step(step, total, generator)
        yield step

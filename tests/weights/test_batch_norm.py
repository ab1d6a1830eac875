from typing import Any

import pytest
import torch
from torch import nn

from buttress.errors import TrainingError
from buttress.weights.batch_norm import reestimate_batch_norm


def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 3, 4, 4, generator=generator) * (i + 1) + i for i in range(3)]


def test_statistics_are_the_mean_of_those_of_the_batches():
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=0.3), nn.Dropout(0.5))
    model[1].running_mean.fill_(9.0)
    model.train()
    model[2].eval()
    assert reestimate_batch_norm(model, batches()) == 3
    outs = [model[0](b).double().transpose(0, 1).flatten(1) for b in batches()]
    mean = torch.stack([o.mean(1) for o in outs]).mean(0)
    var = torch.stack([o.var(1, correction=1) for o in outs]).mean(0)
    torch.testing.assert_close(model[1].running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model[1].running_var.double(), var, rtol=1e-5, atol=1e-6)
    assert (model[1].momentum, model.training, model[1].training, model[2].training) == (0.3, True, True, False)


def test_dropout_takes_no_part():
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3)).train()
    reestimate_batch_norm(model, batches()[:1])
    torch.testing.assert_close(model[1].running_mean, batches()[0].mean((0, 2, 3)))


def test_at_most_so_many_batches_and_none_of_one_image():
    model: Any = nn.Sequential(nn.BatchNorm2d(3))
    lone = torch.full((1, 3, 4, 4), 100.0)
    assert reestimate_batch_norm(model, [lone, *batches()], batches=2) == 2
    torch.testing.assert_close(model[0].running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches()[:2]]).mean(0))


def test_batches_of_one_image_count_where_there_are_no_others():
    model: Any = nn.Sequential(nn.BatchNorm2d(3))
    lone = [torch.randn(1, 3, 4, 4) + i for i in range(3)]
    assert reestimate_batch_norm(model, lone) == 3
    torch.testing.assert_close(model[0].running_mean, torch.cat(lone).mean((0, 2, 3)))
    variances = torch.stack([image[0].flatten(1).var(1) for image in lone])
    torch.testing.assert_close(model[0].running_var, variances.mean(0))


def test_one_value_a_channel_is_too_few():
    model: Any = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    with pytest.raises(TrainingError, match="a batch norm sees a single value; raise --batch"):
        reestimate_batch_norm(model, [torch.randn(1, 3, 4, 4)])


def test_without_images_the_statistics_stay():
    model: Any = nn.Sequential(nn.BatchNorm2d(3))
    model[0].running_mean.fill_(9.0)
    model[0].running_var.fill_(4.0)
    assert reestimate_batch_norm(model, []) == 0
    assert model[0].running_mean.tolist() == [9.0] * 3 and model[0].running_var.tolist() == [4.0] * 3


def test_a_model_without_batch_norm_reads_nothing():
    def never():
        raise AssertionError("read")
        yield

    assert reestimate_batch_norm(nn.Sequential(nn.LayerNorm(3)), never()) == 0
    assert reestimate_batch_norm(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), never()) == 0


def test_modes_come_back_also_when_a_batch_fails():
    model: Any = nn.Sequential(nn.BatchNorm2d(3)).eval()
    with pytest.raises(RuntimeError):
        reestimate_batch_norm(model, [torch.zeros(2, 4, 4, 4)])
    assert not model[0].training
    assert model[0].momentum == 0.1

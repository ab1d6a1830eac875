"""Objectives: which loss a batch gets, heads that come and go, and a teacher that is asked once a step."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from buttress.errors import TrainingError
from buttress.loading.targets import Batch, SparseTargets
from buttress.training.losses import binary_cross_entropy, kl_divergence, one_hot, soft_cross_entropy
from buttress.training.objectives import AuxiliaryObjective, OnlineObjective, TargetObjective, Targets
from buttress.training.settings import LossSettings

B, C = 4, 5
IMAGES = torch.zeros(B, 3, 8, 8, dtype=torch.uint8)
IDS = tuple("abcd")
LOGITS = torch.randn(B, C, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 4, -1, 0])
SOFT = SparseTargets(
    values=torch.tensor([[0.6, 0.3], [0.5, 0.1], [0.9, 0.0], [0.4, 0.4]]),
    ids=torch.tensor([[1, 0], [2, 4], [3, 1], [0, 3]]),
    rest=torch.tensor([0.1, 0.4, 0.1, 0.2]),
    classes=C,
)


def loss_of(batch, smoothing=0.0, **settings):
    objective = TargetObjective(LossSettings(**settings), smoothing=smoothing)
    return objective.loss(LOGITS, objective.targets(batch))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_labels_get_torchs_cross_entropy(smoothing):
    labels = torch.tensor([1, 4, 2, 0])
    expected = nn.functional.cross_entropy(LOGITS, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss_of(Batch(IMAGES, labels, IDS), smoothing), expected)


def test_soft_targets_get_kl_unless_another_loss_is_named():
    batch = Batch(IMAGES, SOFT, IDS, labels=LABELS)
    torch.testing.assert_close(loss_of(batch), kl_divergence(LOGITS, SOFT).mean())
    torch.testing.assert_close(loss_of(batch, name="ce"), soft_cross_entropy(LOGITS, SOFT).mean())
    torch.testing.assert_close(loss_of(batch, name="bce"), binary_cross_entropy(LOGITS, SOFT).mean())


def test_a_mixture_is_of_each_samples_own_label_where_it_has_one():
    hard_B = nn.functional.cross_entropy(LOGITS, LABELS.clamp_min(0), reduction="none")
    soft_B = kl_divergence(LOGITS, SOFT)
    expected = torch.where(LABELS >= 0, 0.7 * soft_B + 0.3 * hard_B, soft_B).mean()
    torch.testing.assert_close(loss_of(Batch(IMAGES, SOFT, IDS, labels=LABELS), hard_weight=0.3), expected)


def test_uncertain_views_fall_back_to_their_smoothed_label():
    truth = torch.tensor([0.6, 0.1, torch.nan, 0.4])
    batch = Batch(IMAGES, SOFT, IDS, labels=LABELS, truth=truth)
    hard_B = nn.functional.cross_entropy(LOGITS, LABELS.clamp_min(0), reduction="none", label_smoothing=0.1)
    soft_B = kl_divergence(LOGITS, SOFT)
    expected = torch.stack([soft_B[0], hard_B[1], soft_B[2], soft_B[3]]).mean()
    torch.testing.assert_close(loss_of(batch, 0.1, truth_floor=0.3), expected)


def test_an_uncertain_view_without_a_label_keeps_its_soft_target():
    batch = Batch(IMAGES, SOFT, IDS, labels=torch.full((B,), -1), truth=torch.zeros(B))
    torch.testing.assert_close(loss_of(batch, truth_floor=0.5), kl_divergence(LOGITS, SOFT).mean())


def test_mixed_labels_are_smoothed_like_single_ones():
    mixed = SparseTargets(
        values=torch.tensor([[0.7, 0.3]] * B), ids=torch.tensor([[1, 2]] * B), rest=torch.zeros(B), classes=C
    )
    dense = torch.tensor([0.0, 0.7, 0.3, 0.0, 0.0]).expand(B, C)
    expected = nn.functional.cross_entropy(LOGITS, dense, label_smoothing=0.1)
    torch.testing.assert_close(loss_of(Batch(IMAGES, mixed, IDS, mixed=True), 0.1), expected)


class Teacher:
    """Says the same of all views, and counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def probabilities(self, views):
        self.asked += 1
        (views_BHWC,) = views.values()
        return np.tile(np.array([0.5, 0.2, 0.1, 0.1, 0.1], np.float32), (len(views_BHWC), 1))


def asking(teacher, **settings):
    return OnlineObjective(LossSettings(**settings), teacher=teacher)


def test_a_live_teacher_is_asked_once_a_step_and_its_answer_is_the_target():
    teacher = Teacher()
    objective = asking(teacher)
    views = {6: torch.zeros(B, 6, 6, 3, dtype=torch.uint8)}
    targets = objective.targets(Batch(IMAGES, LABELS, IDS, teacher_views=views))
    losses = [objective.loss(LOGITS, targets) for _ in range(3)]
    dense = torch.from_numpy(teacher.probabilities({6: views[6].numpy()}))
    expected = nn.functional.kl_div(LOGITS.log_softmax(1), dense, reduction="batchmean")
    assert teacher.asked == 2
    for loss in losses:
        torch.testing.assert_close(loss, expected)


def test_a_live_teachers_truth_decides_too():
    objective = asking(Teacher(), truth_floor=0.3)
    targets = objective.targets(
        Batch(IMAGES, LABELS, IDS, teacher_views={6: torch.zeros(B, 6, 6, 3, dtype=torch.uint8)})
    )
    assert targets.soft is not None and targets.truth is not None
    assert targets.truth[:2].tolist() == pytest.approx([0.2, 0.1])
    assert targets.truth[2].isnan()
    hard_B = nn.functional.cross_entropy(LOGITS, LABELS.clamp_min(0), reduction="none")
    soft_B = kl_divergence(LOGITS, targets.soft)
    expected = torch.stack([hard_B[0], hard_B[1], soft_B[2], soft_B[3]]).mean()
    torch.testing.assert_close(objective.loss(LOGITS, targets), expected)


def test_a_live_teachers_truth_decides_only_of_views_of_one_class():
    """Samples 0 and 2 show one class, 1 is mixed, 3 has no label."""
    mixed = SparseTargets(
        values=torch.tensor([[1.0, 0.0], [0.7, 0.3], [1.0, 0.0], [0.0, 0.0]]),
        ids=torch.tensor([[1, 1], [4, 2], [0, 0], [0, 0]]),
        rest=torch.zeros(B),
        classes=C,
    )
    objective = asking(Teacher(), truth_floor=0.3)
    views = {6: torch.zeros(B, 6, 6, 3, dtype=torch.uint8)}
    targets = objective.targets(Batch(IMAGES, mixed, IDS, mixed=True, teacher_views=views))
    assert targets.soft is not None and targets.truth is not None
    np.testing.assert_allclose(targets.truth.numpy(), np.array([0.2, np.nan, 0.5, np.nan]))
    hard_B = nn.functional.cross_entropy(LOGITS, torch.tensor([1, 0, 0, 0]), reduction="none")
    soft_B = kl_divergence(LOGITS, targets.soft)
    expected = torch.stack([hard_B[0], soft_B[1], soft_B[2], soft_B[3]]).mean()
    torch.testing.assert_close(objective.loss(LOGITS, targets), expected)


def prepared(name, classes=7, labelled=1.0):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=C)
    objective = AuxiliaryObjective(LossSettings(auxiliary_weight=0.5), classes=classes, labelled=labelled)
    objective.prepare(model)
    return model, objective


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_the_second_head_hears_the_features_and_leaves_no_trace(name):
    model, objective = prepared(name)
    plain = timm.create_model(name, num_classes=C)
    images = torch.randn(3, 3, 160, 160)
    logits = model.train()(images)
    targets = Targets(soft=one_hot(torch.tensor([6, 0, 3]), 7), hard=torch.tensor([1, -1, 2]))
    objective.loss(logits, targets).backward()
    head = model.auxiliary_head
    assert head.weight.grad.abs().sum() > 0
    assert model.get_classifier().weight.grad.abs().sum() > 0
    objective.finish(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    model.eval()(images)
    assert not model.get_classifier()._forward_pre_hooks


def test_the_loss_of_two_heads_by_hand():
    model, objective = prepared("test_resnet", labelled=2 / 3)
    images, labels = torch.randn(3, 3, 64, 64), torch.tensor([1, -1, 2])
    soft = one_hot(torch.tensor([6, 0, 3]), 7)
    logits = model.train()(images)
    told = model.auxiliary_head(captured(model, images))
    own = nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    expected = own + 0.5 * nn.functional.cross_entropy(told, torch.tensor([6, 0, 3]))
    torch.testing.assert_close(objective.loss(logits, Targets(soft=soft, hard=labels)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_of_a_batch_with_and_without_labels_add_up(size):
    model, objective = prepared("test_vit", labelled=5 / 8)
    images, labels = torch.randn(8, 3, 160, 160), torch.tensor([1, -1, 2, 0, -1, -1, 3, 4])
    soft = one_hot(torch.arange(8) % 7, 7)

    def loss(part):
        return objective.loss(model.train()(images[part]), Targets(soft=soft[part], hard=labels[part]))

    parts = [loss(slice(first, first + size)) * size / 8 for first in range(0, 8, size)]
    torch.testing.assert_close(torch.stack(parts).sum(), loss(slice(0, 8)))


def captured(model, images):
    """What the classifier got in the pass before: batch statistics make a new pass in training mode the same."""
    return model.forward_head(model.forward_features(images), pre_logits=True)


def test_evaluation_does_not_run_the_second_head():
    model, objective = prepared("test_resnet")
    logits = model.eval()(torch.randn(2, 3, 64, 64))
    with pytest.raises(AssertionError, match="training mode"):
        objective.loss(logits, Targets(soft=one_hot(torch.tensor([1, 2]), 7), hard=torch.tensor([0, 1])))


def test_a_model_without_one_classifier_is_refused():
    with pytest.raises(TrainingError, match="one linear classifier"):
        AuxiliaryObjective(LossSettings(), classes=3).prepare(nn.Linear(3, 3))

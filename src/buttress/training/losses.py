"""What a step minimises, over sparse soft targets: nothing is made dense.

Shapes: B batch, C classes, K stored classes. Every loss gives one float32 value per sample, at temperature 1. A target
p has the masses `values` on the classes `ids` and its `rest` spread evenly over the C - K others (`SparseTargets`), so
sum_c p_c f_c is a sum over K classes and one over all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from buttress.loading.targets import SparseTargets


def expectation(targets: SparseTargets, scores_BC: Tensor) -> Tensor:
    """sum_c p_c scores_c, `[B]`."""
    kept_BK = scores_BC.gather(1, targets.ids)
    others_B = (scores_BC.sum(dim=1) - kept_BK.sum(dim=1)) / _others(targets)
    return (targets.values * kept_BK).sum(dim=1) + targets.rest * others_B


def soft_cross_entropy(logits_BC: Tensor, targets: SparseTargets) -> Tensor:
    """-sum_c p_c log softmax(logits)_c, `[B]`."""
    return -expectation(targets, functional.log_softmax(logits_BC.float(), dim=1))


def kl_divergence(logits_BC: Tensor, targets: SparseTargets) -> Tensor:
    """KL(p || softmax(logits)), `[B]`, with 0 log 0 = 0 (Faghri et al. 2023, arXiv 2303.08983).

    Its gradient is that of the soft cross-entropy; its value is smaller by the entropy of the target.
    """
    return soft_cross_entropy(logits_BC, targets) - entropy(targets)


def entropy(targets: SparseTargets) -> Tensor:
    """-sum_c p_c log p_c in nat, `[B]`."""
    even_B = targets.rest / _others(targets)
    rest_B: Tensor = torch.special.xlogy(targets.rest, even_B)
    kept_B: Tensor = torch.special.entr(targets.values).sum(dim=1)
    return kept_B - rest_B


def binary_cross_entropy(logits_BC: Tensor, targets: SparseTargets) -> Tensor:
    """C two-way cross-entropies with p_c as the chance of class c, their mean over the classes, `[B]`.

    Source: Wightman et al. 2021, "ResNet strikes back" (arXiv 2110.00476), section 4.
    """
    logits_BC = logits_BC.float()
    return functional.softplus(logits_BC).mean(dim=1) - expectation(targets, logits_BC) / targets.classes


def normalised_distillation(logits_BC: Tensor, targets: SparseTargets, labels_B: Tensor, *, gamma: float) -> Tensor:
    """NKD, `[B]`: -p_t log q_t - gamma sum_{c != t} p'_c log q'_c.

    q = softmax(logits); p' and q' are p and q over the classes other than t, scaled to sum to 1. Where p is all on t
    the second term is nothing: the target says nothing of the others.

    Args:
        labels_B: int64, the class t; -1 = the likeliest of the target.
        gamma: weight of the second term; 1.5 in the paper.

    Source: Yang et al. 2023, "From Knowledge Distillation to Self-Knowledge Distillation" (arXiv 2303.13005), eq. 9.
    """
    log_q_BC = functional.log_softmax(logits_BC.float(), dim=1)
    t_B = torch.where(labels_B >= 0, labels_B, targets.ids.gather(1, targets.values.argmax(dim=1, keepdim=True))[:, 0])
    here_BK = targets.ids == t_B[:, None]
    stored_B = here_BK.any(dim=1)
    even_B = targets.rest / _others(targets)
    p_t_B = torch.where(stored_B, (targets.values * here_BK).sum(dim=1), even_B)
    # What is said of the other classes is scaled before it is summed: 1 - p_t, and a sum over all classes less that of
    # t, have no digits left where p_t is near 1.
    other_BK = targets.values * ~here_BK
    other_mass_B = other_BK.sum(dim=1) + targets.rest - torch.where(stored_B, 0.0, even_B)
    safe_B = torch.where(other_mass_B > 0, other_mass_B, 1.0)
    log_q_t_B = log_q_BC.gather(1, t_B[:, None])[:, 0]
    log_rest_B = log_q_BC.scatter(1, t_B[:, None], -torch.inf).logsumexp(dim=1)
    kept_BK = log_q_BC.gather(1, targets.ids)
    unstored_B = log_q_BC.sum(dim=1) - kept_BK.sum(dim=1) - torch.where(stored_B, 0.0, log_q_t_B)
    told_B = (other_BK / safe_B[:, None] * kept_BK).sum(dim=1) + even_B / safe_B * unstored_B
    return -p_t_B * log_q_t_B + gamma * torch.where(other_mass_B > 0, log_rest_B - told_B, 0.0)


def one_hot(labels_B: Tensor, classes: int) -> SparseTargets:
    """Hard labels as targets of one class each; -1 (none) has no mass at all."""
    has_B = labels_B >= 0
    return SparseTargets(
        values=has_B.float()[:, None],
        ids=labels_B.clamp_min(0)[:, None],
        rest=torch.zeros(len(labels_B), device=labels_B.device),
        classes=classes,
    )


def even(targets: SparseTargets) -> SparseTargets:
    """The target that says nothing, 1/C everywhere, for as many samples as `targets` has."""
    like = targets.rest
    return SparseTargets(
        values=torch.full_like(like, 1 / targets.classes)[:, None],
        ids=torch.zeros_like(targets.ids[:, :1]),
        rest=torch.full_like(like, 1 - 1 / targets.classes),
        classes=targets.classes,
    )


def _others(targets: SparseTargets) -> int:
    """Classes that share the rest; at least 1, for with K = C the rest is nothing."""
    return max(targets.classes - targets.ids.shape[1], 1)

"""What a step minimises. Shapes: B batch, C classes. Everything in float32, mean over the batch, temperature 1."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from buttress.errors import SettingsError


def soft_target_loss(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """KL(target || softmax(logits)), 0-d, with 0 log 0 = 0 and no term for the hard label (arXiv 2303.08983).

    Its gradient is that of the soft cross-entropy; its value is smaller by the entropy of the target.
    """
    return functional.kl_div(
        functional.log_softmax(logits_BC.float(), dim=1), targets_BC.float(), reduction="batchmean"
    )


def hard_label_loss(logits_BC: Tensor, labels_B: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, 0-d; with smoothing s the target is 1 - s + s/C on the label and s/C elsewhere."""
    return functional.cross_entropy(logits_BC.float(), labels_B, label_smoothing=smoothing)


def loss_of(logits_BC: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """The loss for whatever kind of target the batch has: float [B, C] is soft, int64 [B] is hard.

    Raises:
        SettingsError: smoothing is asked for with soft targets.
    """
    if not targets.is_floating_point():
        return hard_label_loss(logits_BC, targets, smoothing=smoothing)
    if smoothing:
        raise SettingsError(
            f"label_smoothing = {smoothing}: only hard labels are smoothed; set it to 0 for soft targets"
        )
    return soft_target_loss(logits_BC, targets)

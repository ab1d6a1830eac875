"""Accuracy where an image may have several right labels. Shapes: N samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from buttress.metrics.intervals import Figure, figure, fraction


def multilabel_accuracy(predicted_N: Tensor, right: Sequence[Collection[int]]) -> Figure:
    """Share of the images whose prediction is one of their right classes; images without any are left out.

    The accuracy on ReaL labels of ImageNet (Beyer et al. 2020, arXiv 2006.07159, section 3) and the multi-label
    accuracy of Shankar et al. 2020.

    Args:
        predicted_N: int64 [N].
        right: of each image its right classes.
    """
    asked = [predicted in classes for predicted, classes in zip(predicted_N.tolist(), right, strict=True) if classes]
    return fraction(sum(asked), len(asked)) if asked else figure(None, 0)

"""Fresh views for a live teacher: the same view at the student's size and at the teacher's, from one decode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from buttress.loading.batches import FreshBatches
from buttress.sources import Source
from buttress.views.policy import Policy


class OnlineBatches(FreshBatches):
    """Fresh views of all samples, partners from all too: the teacher needs no label of them.

    Args:
        source: images; labels are given on where there are any.
        policy: augmentation.
        seed: seed of the views.
        size: side of the student's views, pixels.
        teacher_sizes: sides of the teacher's views, pixels.
    """

    def __init__(self, source: Source, policy: Policy, *, seed: int, size: int, teacher_sizes: Sequence[int]) -> None:
        everything = np.arange(len(source))
        super().__init__(source, policy, seed=seed, size=size, usable=everything, teacher_sizes=teacher_sizes)

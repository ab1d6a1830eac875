"""Fresh views for a live teacher: the same view at the student's size and at the teacher's, from one decode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from buttress.loading.batches import ArrayBatch
from buttress.loading.images import Images
from buttress.sources import Source
from buttress.views.policy import Policy


class OnlineBatches:
    """Views of a policy for the student and for the teacher. View number = epoch, so every epoch sees fresh views.

    Where the policy mixes, partners are drawn from all samples: the teacher needs no label of them.

    Args:
        source: images; labels are given on where there are any.
        policy: augmentation.
        seed: seed of the views.
        size: side of the student's views, pixels.
        teacher_sizes: sides of the teacher's views, pixels.
    """

    def __init__(self, source: Source, policy: Policy, *, seed: int, size: int, teacher_sizes: Sequence[int]) -> None:
        self.source, self.classes, self.label_classes = source, source.classes, len(source.classes or ())
        self.usable = np.arange(len(source))
        self._teacher_sizes = tuple(teacher_sizes)
        sizes = tuple(dict.fromkeys((size, *teacher_sizes)))
        self._images = Images(source, policy, seed, sizes, self.usable if policy.mixes else self.usable[:0])

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int) -> ArrayBatch:
        """The batch of `indices` in `epoch`."""
        index_B = np.asarray(indices, np.int64)
        drawn = self._images.render(index_B, np.full(len(index_B), epoch), np.ones(len(index_B), bool))
        index_B = index_B[drawn.kept]
        return ArrayBatch(
            drawn.views_BHWC,
            index_B,
            *drawn.labels(index_B, np.asarray(self.source.labels, np.int32)),
            undecodable=drawn.bad,
            teacher_views={side: drawn.sides[side] for side in self._teacher_sizes},
        )

"""Stored views with the teacher's own classes, and beside them the source's hard labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError, SourceError
from buttress.loading.batches import ArrayBatch, ReinforcedBatches
from buttress.sources import Source
from buttress.store.reader import Reinforcement


class AuxiliaryBatches(ReinforcedBatches):
    """What `ReinforcedBatches` gives, with labels in the source's own classes.

    Args:
        source: images; some must have a label, not all need one.
        reinforcement: made with `--classes teacher`.
        size: side of the views, pixels.
        seed: seed of the order of views.

    Raises:
        SettingsError: the stored classes are the source's own.
        SourceError: no sample has a label.
    """

    def __init__(self, source: Source, reinforcement: Reinforcement, *, size: int, seed: int = 0) -> None:
        super().__init__(source, reinforcement, size=size, seed=seed)
        if not self.coverage.teachers_classes:
            raise SettingsError(
                f"--head auxiliary: {reinforcement.path} holds the classes of {source.uri} themselves; use --head own, "
                "or make a reinforcement with --classes teacher"
            )
        if not (np.asarray(source.labels) >= 0).any():
            raise SourceError(
                f"{source.uri}: none of its {len(source):,} samples has a label to train on; use --head own"
            )

    def batch(self, indices: Sequence[int] | NDArray[np.int64], epoch: int) -> ArrayBatch:
        """The batch of `indices` in `epoch`."""
        arrays = super().batch(indices, epoch)
        return replace(arrays, labels_B=np.asarray(self.source.labels)[arrays.index_B])

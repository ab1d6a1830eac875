"""Stored views with the teacher's own classes, and beside them the source's hard labels."""

from __future__ import annotations

import numpy as np

from buttress.errors import SettingsError, SourceError
from buttress.loading.batches import ReinforcedBatches
from buttress.sources import Source
from buttress.store.reader import Reinforcement


class AuxiliaryBatches(ReinforcedBatches):
    """What `ReinforcedBatches` gives, with labels, those of partners too, in the source's own classes.

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
        self.labels_N, self.label_classes = np.asarray(source.labels, np.int32), len(source.classes or ())
        if not (self.labels_N >= 0).any():
            raise SourceError(
                f"{source.uri}: none of its {len(source):,} samples has a label to train on; use --head own"
            )

    def line(self) -> str:
        """What is used, in one line for the user."""
        return self.coverage.line(labelled=int((self.labels_N[self.usable] >= 0).sum()))

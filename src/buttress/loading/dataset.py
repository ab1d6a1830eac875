"""A reinforced dataset for anybody's training code: a plain map-style torch Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from buttress.errors import SourceError
from buttress.loading.batches import ReinforcedBatches
from buttress.loading.targets import SparseTargets
from buttress.sources import Source, open_source
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.terminal import note


class ReinforcedDataset(Dataset[tuple[Tensor, Tensor]]):
    """Source + reinforcement: `dataset[i] -> (view [3, size, size], soft target [C])`.

    Args:
        source: URI or source object, in any order, filtered or extended.
        reinforcement: folder, or an open reinforcement.
        size: side of the views, pixels; need not be the teacher's.
        p: probability of a reinforced view, else the hard label, 0..1.
        missing: "error" or "hard", for samples that the reinforcement does not know.
        seed: seed of the order of views.
        normalize: none gives uint8 0..255; (mean, std) in units of 0..1 gives float32.

    The view changes with the epoch: call `set_epoch(e)` at the start of each, as with a distributed sampler; it
    reaches persistent workers too. Targets are float32, not negative, and sum to 1.

    Raises:
        ButtressError: the two do not belong together, or an image cannot be decoded or has changed.
    """

    def __init__(
        self,
        source: str | Source,
        reinforcement: str | Path | Reinforcement,
        *,
        size: int,
        p: float = 0.99,
        missing: str = "error",
        seed: int = 0,
        normalize: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        store = reinforcement if isinstance(reinforcement, Reinforcement) else open_reinforcement(Path(reinforcement))
        self._batches = ReinforcedBatches(open_source(source), store, size=size, p=p, missing=missing, seed=seed)
        coverage = self._batches.coverage
        if coverage.changed or coverage.teachers_classes or coverage.undrawable:
            note(coverage.line())
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._scale = None if normalize is None else tuple(torch.tensor(v).view(3, 1, 1) for v in normalize)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the target's C classes."""
        assert self._batches.classes is not None
        return self._batches.classes

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, 0 and up, whose views are given; seen by workers that are already running."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._batches.usable)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Samples of a whole batch at once (torch's DataLoader calls this); the labels are decoded together."""
        arrays = self._batches.batch(self._batches.usable[np.asarray(indices)], int(self._epoch))
        if arrays.undecodable:
            raise SourceError(
                f"{arrays.undecodable[0]}: image cannot be decoded; repair it or remove it from the source"
            )
        assert arrays.values_BK is not None and arrays.ids_BK is not None and arrays.rest_B is not None
        targets_BC = SparseTargets(
            values=torch.from_numpy(arrays.values_BK),
            ids=torch.from_numpy(arrays.ids_BK).long(),
            rest=torch.from_numpy(arrays.rest_B),
            classes=len(self.classes),
        ).dense()
        views_BCHW = torch.from_numpy(arrays.views_BHWC).permute(0, 3, 1, 2)
        return [(self._normalize(view), target) for view, target in zip(views_BCHW, targets_BC, strict=True)]

    def _normalize(self, view_CHW: Tensor) -> Tensor:
        if self._scale is None:
            return view_CHW
        mean, std = self._scale
        return (view_CHW.float() / 255 - mean) / std

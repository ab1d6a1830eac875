"""Batches as the engine sees them, with soft targets that stay sparse until the device.

Shapes: B batch, K stored classes per view, C classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseTargets:
    """Soft targets of a batch: K masses per row and the mass of all other classes together.

    A hard label is a row with value 1 in slot 0, 0 in the others, and rest 0.

    Args:
        values: float32 [B, K], 0..1.
        ids: int64 [B, K], the classes of the values; distinct in a row, save where the value is 0.
        rest: float32 [B], 0..1, what is left of 1.
        classes: C.
    """

    values: Tensor
    ids: Tensor
    rest: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> SparseTargets:
        """The targets of some rows."""
        return replace(self, values=self.values[part], ids=self.ids[part], rest=self.rest[part])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SparseTargets:
        """The same targets on `device`."""
        values, ids, rest = (t.to(device, non_blocking=non_blocking) for t in (self.values, self.ids, self.rest))
        return SparseTargets(values=values, ids=ids, rest=rest, classes=self.classes)

    def pin_memory(self) -> SparseTargets:
        """The same targets in page-locked memory."""
        values, ids, rest = (t.pin_memory() for t in (self.values, self.ids, self.rest))
        return SparseTargets(values=values, ids=ids, rest=rest, classes=self.classes)

    def dense(self) -> Tensor:
        """float32 [B, C]: the rest spread evenly over the C - K classes that are not stored ("smooth" of ml-dr).

        With K = C there is no such class and the rest is nothing.
        """
        others = max(self.classes - self.values.shape[1], 1)
        dense_BC = (self.rest / others)[:, None].repeat(1, self.classes)
        dense_BC.scatter_(1, self.ids, 0.0)
        return dense_BC.scatter_add_(1, self.ids, self.values)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loader gives to the engine and to `predictions`.

    Args:
        images: uint8 [B, 3, H, W], channels_last, 0..255.
        targets: soft targets, or hard labels: int64 [B] (-1 = none), of mixed views sparse.
        ids: the B sample ids.
        labels: hard labels beside soft targets, of either form.
        truth: float32 [B], what the teacher thinks of the sample's own class; NaN = not known, or a mixed view.
        mixed: whether sparse `targets` are hard labels, those of mixed views, and nobody's soft targets.
        teacher_views: for a live teacher, uint8 [B, H', W', 3] of each size H' = W' that it wants; on the CPU.
    """

    images: Tensor
    targets: SparseTargets | Tensor
    ids: tuple[str, ...]
    labels: SparseTargets | Tensor | None = None
    truth: Tensor | None = None
    mixed: bool = False
    teacher_views: Mapping[int, Tensor] | None = None

    def __getitem__(self, part: slice) -> Batch:
        """Some of its samples."""
        views = self.teacher_views
        return replace(
            self,
            images=self.images[part],
            targets=self.targets[part],
            ids=self.ids[part],
            labels=None if self.labels is None else self.labels[part],
            truth=None if self.truth is None else self.truth[part],
            teacher_views=None if views is None else {side: views_BHWC[part] for side, views_BHWC in views.items()},
        )

    def parts(self, most: int | None) -> list[Batch]:
        """The batch in parts of at most `most` images, as even as they can be; None = whole."""
        count = len(self.ids)
        parts = 1 if most is None else -(-count // most)
        return [self[number * count // parts : (number + 1) * count // parts] for number in range(parts)]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on `device`; the images stay uint8."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
            labels=None if self.labels is None else self.labels.to(device, non_blocking=non_blocking),
            truth=None if self.truth is None else self.truth.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a copy to a GPU need not be waited for; torch calls it."""
        return replace(
            self,
            images=self.images.pin_memory(),
            targets=self.targets.pin_memory(),
            labels=None if self.labels is None else self.labels.pin_memory(),
            truth=None if self.truth is None else self.truth.pin_memory(),
        )

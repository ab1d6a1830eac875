"""Crops of a photograph that is drawn with room around them. Shapes: B batch, H W pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import floor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from buttress.loading.batches import HardBatches
from buttress.loading.loader import BatchLoader
from buttress.loading.targets import Batch
from buttress.models.preprocessing import Preprocessing
from buttress.sources import Source
from buttress.views.policy import Policy, ResizeCenterCrop
from buttress.views.presets import eval_policy

LEAST_MARGIN = 16  # pixels of 224 on each side, for a choice of crops
PATTERN = 2 * (np.random.Generator(np.random.Philox(0)).random((15, 15)) < 0.5).astype(np.float32) - 1

Look = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Canvas:
    """How photographs are drawn so that a crop has room to move.

    Args:
        policy: draws a square of `side` pixels at the scale of the model's evaluation look.
        side: that of a crop, twice the margin, and one pixel more at each end.
        room: side without these two pixels.
    """

    policy: Policy
    side: int
    room: int

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> Canvas:
        """Of the resized photograph what lies around the model's crop, at least 16 pixels of 224 on each side.

        Where the model's own look leaves less, the photograph is resized to a somewhat larger side.
        """
        size = preprocessing.size
        margin = max(LEAST_MARGIN * size // 224, 1, (floor(size / preprocessing.crop_pct) - size) // 2 - 1)
        room = size + 2 * margin
        resized = max(floor(size / preprocessing.crop_pct), room + 2)
        (look,) = eval_policy(size, preprocessing.crop_pct, preprocessing.interpolation).ops
        assert isinstance(look, ResizeCenterCrop)
        return cls(Policy((replace(look, crop_fraction=(room + 2) / resized),)), room + 2, room)

    def loader(self, source: Source, *, batch: int, workers: int, max_bad: float) -> BatchLoader:
        """Batches of canvases, uint8 [B, 3, side, side], in the order of the source."""
        batches = HardBatches(source, self.policy, seed=0, size=self.side)
        return BatchLoader(batches, batch=batch, shuffle=False, workers=workers, max_bad=max_bad)

    def at(self, photo: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
        """What a camera sees that has moved by -1, 0 or 1 pixel: uint8 [room, room, 3]."""
        return photo[1 + down : 1 + down + self.room, 1 + right : 1 + right + self.room]


def middle_crop(side: int) -> Look:
    """The square of `side` pixels in the middle."""

    def look(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        margin = (len(photo) - side) // 2
        return photo[margin : margin + side, margin : margin + side]

    return look


def chosen_crop(side: int) -> Look:
    """The square of `side` pixels whose middle fits a fixed pattern best.

    It depends on the content alone, so that when the camera moves the same square is chosen, unless the best one leaves
    the picture or a better one comes in: crop selection, after Shifman and Weiss 2024 (arXiv 2404.07153).
    """

    def look(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        half, room = side // 2, len(photo) - side + 1
        fits = _fits(photo, cv2.BORDER_REPLICATE)[half : half + room, half : half + room]
        top, left = np.unravel_index(int(fits.argmax()), fits.shape)
        return photo[top : top + side, left : left + side]

    return look


def chosen_turn(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image turned cyclically so that the place which fits a fixed pattern best is in the middle."""
    side = len(image)
    wide = np.pad(image, ((side // 2,) * 2, (side // 2,) * 2, (0, 0)), mode="wrap")
    fits = _fits(wide, cv2.BORDER_REPLICATE)[side // 2 : side // 2 + side, side // 2 : side // 2 + side]
    top, left = np.unravel_index(int(fits.argmax()), fits.shape)
    turned: NDArray[np.uint8] = np.roll(image, (side // 2 - int(top), side // 2 - int(left)), axis=(0, 1))
    return turned


def _fits(photo: NDArray[np.uint8], border: int) -> NDArray[np.float32]:
    """How well each place fits the pattern; whole numbers, so that equal places give equal values."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fits: NDArray[np.float32] = np.rint(cv2.filter2D(grey, -1, PATTERN, borderType=border))
    return fits


class ChosenCrops:
    """Batches of canvases as batches of the crops that `chosen_crop` takes of them.

    Args:
        canvases: of `Canvas.loader`.
        canvas: how they were drawn.
        side: of a crop.
    """

    def __init__(self, canvases: BatchLoader, canvas: Canvas, side: int) -> None:
        self._canvases, self._canvas, self._look = canvases, canvas, chosen_crop(side)

    @property
    def steps_per_epoch(self) -> int:
        return self._canvases.steps_per_epoch

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """As of the batches that it is made of."""
        self._canvases.set_epoch(epoch, first_step)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._canvases:
            photos = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
            crops_BHW3 = np.stack([self._look(self._canvas.at(photo, 0, 0)) for photo in photos])
            yield replace(batch, images=torch.from_numpy(crops_BHW3).permute(0, 3, 1, 2))

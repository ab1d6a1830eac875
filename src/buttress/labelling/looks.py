"""The very same views at every size that some teacher wants, from one decode of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from buttress.sources import Sample, decode, id_hash
from buttress.views.render import Renderer

Views = dict[int, NDArray[np.uint8]]
"""Side in pixels -> uint8 `[V, side, side, 3]`."""


def views_at_sizes(renderer: Renderer, sample: Sample, views: Sequence[int], sizes: Sequence[int]) -> Views:
    """Some views of one image, at each of `sizes`.

    Raises:
        UndecodableImage: its bytes are no image.
    """
    pixels_HWC = decode(sample.data)
    return {size: renderer.views(pixels_HWC, id_hash(sample.id), views, size) for size in sizes}


class WaitingViews:
    """Views that wait, at each of some sizes, until there are enough for a batch."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._views: dict[int, list[NDArray[np.uint8]]] = {size: [] for size in sizes}

    def __len__(self) -> int:
        """How many views wait."""
        return len(next(iter(self._views.values())))

    def add(self, drawn: Views) -> None:
        """Append the views of an image."""
        for size, views_VHWC in drawn.items():
            self._views[size].extend(views_VHWC)

    def batch(self, first: int, count: int) -> Views:
        """The views `first .. first + count - 1`, or as many as there are, stacked."""
        return {size: np.stack(views[first : first + count]) for size, views in self._views.items()}

    def drop(self, count: int) -> None:
        """Forget the first `count`."""
        for views in self._views.values():
            del views[:count]

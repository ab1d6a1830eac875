"""The very same views at every size that some teacher wants, from one decode of the image and of each partner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from buttress.sources import decode
from buttress.views.render import Picture, Pictures, Renderer, UndecodablePartner

Views = dict[int, NDArray[np.uint8]]
"""Side in pixels -> uint8 `[V, side, side, 3]`."""


def views_at_sizes(
    renderer: Renderer,
    picture: Picture,
    views: Sequence[int],
    sizes: Sequence[int],
    pictures: Pictures | None = None,
) -> tuple[list[int], Views]:
    """Some views of one image, at each of `sizes`.

    Args:
        renderer: draws them.
        picture: the image and its id hash.
        views: their numbers.
        sizes: sides, pixels.
        pictures: gives the images of other rows; needed where the policy mixes. Asked once for each mixed view.

    Returns: the numbers of those that can be drawn, all but those whose partner does not decode, and their pixels.

    Raises:
        UndecodableImage: its bytes are no image.
    """
    data, id_hash = picture
    pixels_HWC = decode(data)
    drawn: list[int] = []
    room = {size: np.empty((len(views), size, size, 3), np.uint8) for size in sizes}
    for view in views:
        rows = [views_VHWC[len(drawn)] for views_VHWC in room.values()]
        try:
            renderer.view_into_each(pixels_HWC, id_hash, view, rows, pictures)
        except UndecodablePartner:
            continue
        drawn.append(view)
    return drawn, {size: views_VHWC[: len(drawn)] for size, views_VHWC in room.items()}


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

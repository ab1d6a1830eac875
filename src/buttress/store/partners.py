"""Which stored views are mixed, and which can be drawn from a source: a mixed one needs its partner's image too.

Shapes: N samples of the source, M rows that partners are drawn from, V views.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from buttress.sources import Source, id_hash
from buttress.store.reader import Reinforcement
from buttress.terminal import progress
from buttress.views.draw import Drawer
from buttress.views.render import Picture, Renderer


class Partners:
    """The images that views are mixed with, as far as a source has them. Picklable.

    Args:
        source: the images.
        reinforcement: whose views are to be drawn.
        rows_N: row of every sample of the source; -1 = none.

    Fields:
        index_M: position in the source of every row that partners are drawn from; -1 = it is not there, or its image
            could not be decoded when it was labelled, so that no view is mixed with it. Empty where nothing is mixed.
        complete: whether every stored view can be drawn.
    """

    def __init__(self, source: Source, reinforcement: Reinforcement, rows_N: NDArray[np.int64]) -> None:
        card = reinforcement.card
        self.renderer = Renderer(card.policy, card.seed, card.source.rows)
        self._source, self._views = source, card.views
        self.index_M = np.full(card.source.rows if card.policy.mixes else 0, -1, np.int64)
        there_N = (rows_N >= 0) & (rows_N < len(self.index_M)) & ~np.isin(rows_N, reinforcement.absent_rows)
        self.index_M[rows_N[there_N]] = np.flatnonzero(there_N)
        self.complete = bool((self.index_M >= 0).all())

    def drawable(self, sample_hash: int, view: int) -> bool:
        """Whether view `view` of the sample with this id hash is mixed with nothing, or with an image that is here."""
        mix = None if self.complete else self.renderer.mix(sample_hash, view)
        return mix is None or bool(self.index_M[mix.partner] >= 0)

    def next_view(self, sample_hash: int, view: int) -> int | None:
        """The first of `view`, `view` + 1, ... (round to `view` - 1) that can be drawn; none where no one can."""
        turns = ((view + turn) % self._views for turn in range(self._views))
        return next((number for number in turns if self.drawable(sample_hash, number)), None)

    def picture(self, row: int) -> Picture:
        """The image and the id hash of a row that is here.

        Raises: UndecodableImage.
        """
        sample = self._source[int(self.index_M[row])]
        return sample.data, id_hash(sample.id)


def plain_views(reinforcement: Reinforcement, rows_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which stored views `[N, V]` of these rows show the own image alone.

    Args:
        reinforcement: whose views.
        rows_N: 0 and up.
    """
    card = reinforcement.card
    plain_NV = np.ones((len(rows_N), card.views), np.bool_)
    if not card.policy.mixes:
        return plain_NV
    drawer = Drawer(card.policy, card.seed, card.source.rows)
    with progress("views", len(rows_N), "samples") as bar:
        for number, sample_hash in enumerate(reinforcement.id_hashes[rows_N].tolist()):
            plain_NV[number] = [drawer.mix(sample_hash, view) is None for view in range(card.views)]
            bar.advance()
    return plain_NV

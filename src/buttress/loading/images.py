"""Views of a source's samples, drawn into the rows of batches. No torch.

Shapes: N samples, B batch, M rows that partners are drawn from, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources import Source, UndecodableImage, content_hash
from buttress.sources.decode import decode
from buttress.sources.identity import id_hashes
from buttress.views.mix import own_share
from buttress.views.policy import Policy
from buttress.views.render import Picture, Pixels, Renderer, UndecodablePartner


@dataclass(frozen=True, slots=True)
class Rendered:
    """Views of the samples that can be drawn, and where they come from.

    Args:
        sides: side in pixels -> uint8 `[B', side, side, 3]`.
        kept: places in the batch that was asked for.
        partner_B: positions in the source of the images that they are mixed with; -1 = not mixed.
        own_share_B: share of the view that is the own image's, at the first size.
        bad: ids of images that do not decode.
    """

    sides: dict[int, NDArray[np.uint8]]
    kept: NDArray[np.int64]
    partner_B: NDArray[np.int64]
    own_share_B: NDArray[np.float32]
    bad: tuple[str, ...]

    @property
    def views_BHWC(self) -> NDArray[np.uint8]:
        """At the first size."""
        return next(iter(self.sides.values()))

    def labels(
        self, index_B: NDArray[np.int64], labels_N: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """Labels of the samples at `index_B`, those of their partners (-1 = none or not mixed), and the own share."""
        partner_labels_B = np.where(self.partner_B >= 0, labels_N[self.partner_B], -1).astype(np.int32)
        return labels_N[index_B].astype(np.int32), partner_labels_B, self.own_share_B


class Images:
    """Renders samples into batch rows, checking once per process that the bytes are those that the teacher saw.

    Args:
        source: the images.
        policy, seed: of the views.
        sizes: sides of the views, pixels; distinct. Every view is drawn at each, from one decode.
        index_M: position in the source of every row that partners are drawn from, -1 = not there; empty where the
            policy does not mix.
        mixing: a renderer of policy and seed that has drawn their mixes already; none = one of its own.
    """

    def __init__(
        self,
        source: Source,
        policy: Policy,
        seed: int,
        sizes: Sequence[int],
        index_M: NDArray[np.int64],
        mixing: Renderer | None = None,
    ) -> None:
        self.source, self.sizes = source, tuple(sizes)
        self.hashes_N = id_hashes(source.ids)
        self._index_M = index_M
        self._mixing = mixing or Renderer(policy, seed, len(index_M))
        self._alone = Renderer(policy.unmixed, seed)
        self._expected_N: NDArray[np.uint64] | None = None

    def expect(self, content_hashes_N: NDArray[np.uint64]) -> None:
        """Refuse samples whose bytes hash to anything else; 0 = not known."""
        self._expected_N = content_hashes_N.copy()

    def render(self, index_B: NDArray[np.int64], views_B: NDArray[np.int64], mixed_B: NDArray[np.bool_]) -> Rendered:
        """The views of these samples, under the policy as it is or (not `mixed_B`) without its mixing.

        Views of one sample that stand beside one another are drawn from one decode of it.
        """
        room = {side: np.empty((len(index_B), side, side, 3), np.uint8) for side in self.sizes}
        kept: list[int] = []
        mixes: list[tuple[int, float]] = []
        bad: list[str] = []
        decoded = _Decoded(self._picture)
        asked = zip(index_B.tolist(), views_B.tolist(), mixed_B.tolist(), strict=True)
        for place, (index, view, mixed) in enumerate(asked):
            try:
                rows = [views_BHWC[len(kept)] for views_BHWC in room.values()]
                picture = decoded.picture(index, again=place + 1 < len(index_B) and index_B[place + 1] == index)
                mix = self._draw(picture, view, self._mixing if mixed else self._alone, rows)
            except UndecodablePartner as failure:
                bad.append(self.source.ids[int(self._index_M[failure.row])])
            except UndecodableImage:
                bad.append(self.source.ids[index])
            else:
                kept.append(place)
                mixes.append(mix)
        partners, shares = zip(*mixes, strict=True) if mixes else ((), ())
        return Rendered(
            {side: views_BHWC[: len(kept)] for side, views_BHWC in room.items()},
            np.array(kept, np.int64),
            np.array(partners, np.int64),
            np.array(shares, np.float32),
            tuple(bad),
        )

    def _draw(self, picture: Picture, view: int, renderer: Renderer, rows: Sequence[Pixels]) -> tuple[int, float]:
        """Draw a view; gives the position of its partner (-1 = none) and the own share."""
        data, sample_hash = picture
        renderer.view_into_each(data, sample_hash, view, rows, lambda row: self._picture(int(self._index_M[row])))
        mix = renderer.mix(sample_hash, view)
        return (-1, 1.0) if mix is None else (int(self._index_M[mix.partner]), own_share(mix, rows[0].shape[:2]))

    def _picture(self, index: int) -> Picture:
        sample = self.source[index]
        self._check(index, sample.id, sample.data)
        return sample.data, int(self.hashes_N[index])

    def _check(self, index: int, sample_id: str, data: bytes | NDArray[np.uint8]) -> None:
        if self._expected_N is None or not self._expected_N[index]:
            return
        if content_hash(data) != self._expected_N[index]:
            raise SourceError(
                f"{sample_id}: the image has changed since the teacher saw it (other bytes under the same id); "
                "restore it, or give it another name and run the same buttress reinforce command again"
            )
        self._expected_N[index] = 0  # checked; not again in this process


class _Decoded:
    """Pictures, of which the last stays decoded while it is asked for again.

    Args:
        pictures: index -> picture.
    """

    def __init__(self, pictures: Callable[[int], Picture]) -> None:
        self._pictures = pictures
        self._index = -1
        self._last: Picture = (b"", 0)

    def picture(self, index: int, *, again: bool) -> Picture:
        """The picture of `index`. `again`: it is the next that is asked for, too.

        Raises:
            UndecodableImage.
        """
        if index != self._index:
            picture = self._pictures(index)
            if not again:
                return picture
            self._index, self._last = index, (decode(picture[0]), picture[1])
        return self._last

"""Views of a source's samples, drawn into the rows of a batch. No torch.

Shapes: N samples, B batch, M rows that partners are drawn from, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources import Source, UndecodableImage, content_hash
from buttress.sources.identity import id_hashes
from buttress.views.policy import Policy
from buttress.views.render import Picture, Pixels, Renderer, UndecodablePartner


@dataclass(frozen=True, slots=True)
class Rendered:
    """Views `[B', H, W, 3]` of those that can be drawn, and where they come from.

    Args:
        kept: places in the batch that was asked for.
        partner_B: positions in the source of the images that they are mixed with; -1 = not mixed.
        own_share_B: share of the view that is the own image's.
        bad: ids of images that do not decode.
    """

    views_BHWC: NDArray[np.uint8]
    kept: NDArray[np.int64]
    partner_B: NDArray[np.int64]
    own_share_B: NDArray[np.float32]
    bad: tuple[str, ...]

    def labels_of_partners(self, labels_N: NDArray[np.int32]) -> NDArray[np.int32]:
        """Label of every partner; -1 = none or not mixed."""
        labels_B: NDArray[np.int32] = np.where(self.partner_B >= 0, labels_N[self.partner_B], -1).astype(np.int32)
        return labels_B


class Images:
    """Renders samples into batch rows, checking once per process that the bytes are those that the teacher saw.

    Args:
        source: the images.
        policy, seed: of the views.
        size: side of the views, pixels.
        index_M: position in the source of every row that partners are drawn from, -1 = not there; empty where the
            policy does not mix.
    """

    def __init__(self, source: Source, policy: Policy, seed: int, size: int, index_M: NDArray[np.int64]) -> None:
        self.source, self.size = source, size
        self.hashes_N = id_hashes(source.ids)
        self._index_M = index_M
        self._mixing, self._alone = Renderer(policy, seed, len(index_M)), Renderer(policy.unmixed, seed)
        self._expected_N: NDArray[np.uint64] | None = None

    def expect(self, content_hashes_N: NDArray[np.uint64]) -> None:
        """Refuse samples whose bytes hash to anything else; 0 = not known."""
        self._expected_N = content_hashes_N.copy()

    def render(self, index_B: NDArray[np.int64], views_B: NDArray[np.int64], mixed_B: NDArray[np.bool_]) -> Rendered:
        """The views of these samples, under the policy as it is or (not `mixed_B`) without its mixing."""
        out_BHWC = np.empty((len(index_B), self.size, self.size, 3), np.uint8)
        kept: list[int] = []
        mixes: list[tuple[int, float]] = []
        bad: list[str] = []
        asked = zip(index_B.tolist(), views_B.tolist(), mixed_B.tolist(), strict=True)
        for place, (index, view, mixed) in enumerate(asked):
            try:
                mix = self._draw(index, view, self._mixing if mixed else self._alone, out_BHWC[len(kept)])
            except UndecodablePartner as failure:
                bad.append(self.source.ids[int(self._index_M[failure.row])])
            except UndecodableImage:
                bad.append(self.source.ids[index])
            else:
                kept.append(place)
                mixes.append(mix)
        partners, shares = zip(*mixes, strict=True) if mixes else ((), ())
        return Rendered(
            out_BHWC[: len(kept)],
            np.array(kept, np.int64),
            np.array(partners, np.int64),
            np.array(shares, np.float32),
            tuple(bad),
        )

    def _draw(self, index: int, view: int, renderer: Renderer, out_HWC: Pixels) -> tuple[int, float]:
        """Draw a view; gives the position of its partner (-1 = none) and the own share."""
        data, sample_hash = self._picture(index)
        renderer.view_into(data, sample_hash, view, out_HWC, lambda row: self._picture(int(self._index_M[row])))
        mix = renderer.mix(sample_hash, view)
        return (-1, 1.0) if mix is None else (int(self._index_M[mix.partner]), mix.own_share)

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

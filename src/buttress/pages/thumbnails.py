"""Small pictures of samples and of their views, as a page embeds them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buttress.loading.coverage import Coverage
from buttress.pages.pictures import shrunk
from buttress.sources import Source, UndecodableImage, decode, id_hash
from buttress.store.partners import Partners
from buttress.store.reader import Reinforcement

PICTURE, SIDE = 168, 112  # pixels: the longer side of a whole image; the side of a view
VIEWS = 6  # of one sample, at most
BUDGET = 12_000  # bytes of one sample's pictures: 1,000 samples make a page of less than 20 MB
QUALITIES = (65, 50, 35, 20, 10)  # of WebP; the first that keeps the budget

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnail:
    """One view.

    Args:
        view: its number.
        partner: place in the source of the image that it is mixed with; none where it is mixed with nothing.
        picture: WebP in base64; none where the image cannot be decoded.
    """

    view: int
    partner: int | None
    picture: str | None


class Thumbnails:
    """Draws samples: the whole image, and the views as the teacher saw them.

    Args:
        source: the images.
        store: whose views are drawn.
        coverage: how the two meet.

    Fields:
        side: of a view, pixels: no larger than the teacher's own.
    """

    def __init__(self, source: Source, store: Reinforcement, coverage: Coverage) -> None:
        self._source, self._store, self._coverage = source, store, coverage
        self._partners = Partners(source, store, coverage.rows)
        self.side = min(SIDE, *(int(teacher.get("size", SIDE)) for teacher in store.card.teachers))

    def draw(self, place: int) -> tuple[str | None, list[Thumbnail]]:
        """The whole image of one sample, and `VIEWS` of its views at most. Reads and decodes it once.

        Of an image that cannot be decoded there are the views without their pictures, and of one that the store does
        not know, or that could not be decoded when it was labelled, there are no views.
        """
        views = self._views(place)
        try:
            image_HWC = decode(self._source[place].data)
        except UndecodableImage:
            return None, [self._thumbnail(place, view, None) for view in views]
        drawn = [self._drawn(image_HWC, place, view) for view in views]
        whole, *encoded = _encoded([shrunk(image_HWC, PICTURE), *drawn])
        thumbnails = [self._thumbnail(place, view, picture) for view, picture in zip(views, encoded, strict=True)]
        return whole, thumbnails

    def _views(self, place: int) -> list[int]:
        """Those that are not mixed first, since a sample is judged by them."""
        if self._coverage.rows[place] < 0 or self._coverage.undecodable[place]:
            return []
        sample_hash, every = id_hash(self._source.ids[place]), range(self._store.views)
        if not self._store.card.policy.mixes:
            return list(every[:VIEWS])
        drawable = [view for view in every if self._partners.drawable(sample_hash, view)]
        mixed = {view for view in drawable if self._partners.renderer.mix(sample_hash, view) is not None}
        return sorted(drawable, key=lambda view: (view in mixed, view))[:VIEWS]

    def _drawn(self, image_HWC: Pixels, place: int, view: int) -> Pixels | None:
        """A view; none where the image that it is mixed with cannot be decoded any more."""
        sample_hash, picture = id_hash(self._source.ids[place]), self._partners.picture
        try:
            views_1HWC = self._partners.renderer.views(image_HWC, sample_hash, [view], self.side, picture)
        except UndecodableImage:
            return None
        return np.asarray(views_1HWC[0], np.uint8)

    def _thumbnail(self, place: int, view: int, picture: str | None) -> Thumbnail:
        mix = self._partners.renderer.mix(id_hash(self._source.ids[place]), view)
        partner = None if mix is None else int(self._partners.index_M[mix.partner])
        return Thumbnail(view=view, partner=partner, picture=picture)


def _encoded(images: Sequence[Pixels | None]) -> list[str | None]:
    """Images of one sample as base64 of WebP, at the first quality at which they keep to the budget, else smaller."""
    for quality in QUALITIES:
        encoded = [None if pixels_HWC is None else _webp(pixels_HWC, quality) for pixels_HWC in images]
        if sum(map(len, filter(None, encoded))) <= BUDGET:
            return [None if data is None else base64.b64encode(data).decode("ascii") for data in encoded]
    return _encoded([None if one is None else shrunk(one, max(one.shape[:2]) // 2) for one in images])


def _webp(pixels_HWC: Pixels, quality: int) -> bytes:
    import cv2

    done, data = cv2.imencode(".webp", pixels_HWC[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert done
    return data.tobytes()

"""The images of rows, as a block's views need them: its own, and those that they are mixed with."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from buttress.errors import LabellingError, SourceError
from buttress.sources import Source, UndecodableImage, content_hash
from buttress.sources.decode import decode


class RowImages:
    """Loads images and notes what it saw; keeps no image, for partners are spread over all rows.

    Args:
        source: the images.
        order: source index of every row, `[rows]`; -1 = not in this source.
        hashes: id hash of every row, `[rows]`.
        unreadable: rows whose image could not be decoded when other views were labelled: not tried again, for an image
            is labelled, and mixed with others, in all views or in none.

    Fields:
        seen: content hash by row; 0 = it could not be decoded.
    """

    def __init__(
        self, source: Source, order: NDArray[np.int64], hashes: NDArray[np.uint64], unreadable: Collection[int]
    ) -> None:
        self._source, self._order, self._hashes, self._unreadable = source, order, hashes, unreadable
        self.seen: dict[int, int] = {}

    def load(self, row: int) -> tuple[NDArray[np.uint8], int]:
        """The pixels [H, W, 3] and the id hash of a row.

        Raises:
            UndecodableImage: it cannot be decoded.
            LabellingError: it is not in this source.
            SourceError: it is another image than a moment ago.
        """
        index = int(self._order[row])
        if index < 0:
            raise LabellingError(
                f"row {row}: views are mixed with its image, which is not in {self._source.uri}; give the whole source"
            )
        if row in self._unreadable:
            self.seen[row] = 0
            raise UndecodableImage("could not be decoded when other views were labelled")
        try:
            sample = self._source[index]
            pixels_HWC = decode(sample.data)
        except UndecodableImage:
            self.note(row, 0)
            raise
        self.note(row, content_hash(sample.data))
        return pixels_HWC, int(self._hashes[row])

    def note(self, row: int, content: int) -> None:
        """Write down what was seen of a row.

        Raises:
            SourceError: it is another image than a moment ago.
        """
        if self.seen.setdefault(row, content) != content:
            raise SourceError(
                f"{self._source.ids[int(self._order[row])]}: the image has changed while it was labelled; "
                "run the same command again"
            )

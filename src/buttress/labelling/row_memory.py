"""What an unfinished labelling must not forget where views are mixed: which samples partners are, and which images.

A record of a mixed view is about two images, and its partner's row may lie in a part that is not there yet. Once all
parts are there, they and the card say both, and this file goes. Shapes: M rows that partners are drawn from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from buttress.files import write_atomic

MEMORY = "rows"  # in the folder of unfinished work
_CHECKSUM_BYTES = 32


@dataclass(frozen=True, slots=True)
class RowMemory:
    """The rows at the first labelling.

    Args:
        hashes_M: id hash of every row.
        contents_M: content hash of the image that finished parts show for the row; 0 = it could not be decoded.
        known_M: whether a finished part has looked at the row, as a partner.
    """

    hashes_M: NDArray[np.uint64]
    contents_M: NDArray[np.uint64]
    known_M: NDArray[np.bool_]

    @classmethod
    def of(cls, hashes_M: NDArray[np.uint64]) -> RowMemory:
        """Of a labelling that begins."""
        return cls(hashes_M.copy(), np.zeros(len(hashes_M), np.uint64), np.zeros(len(hashes_M), bool))

    def learn(self, rows_P: NDArray[np.int64], contents: NDArray[np.uint64]) -> None:
        """Keep what a part that is about to be written shows of these rows; `contents` is of all rows."""
        self.contents_M[rows_P], self.known_M[rows_P] = contents[rows_P], True

    def recall(self, contents: NDArray[np.uint64], known: NDArray[np.bool_]) -> None:
        """Add what it knows to the content hashes of all rows, and to which of them are known."""
        fresh_M = np.flatnonzero(self.known_M & ~known[: len(self.known_M)])
        contents[fresh_M], known[fresh_M] = self.contents_M[fresh_M], True

    def write(self, path: Path) -> None:
        """Keep it in a file, whole or not at all."""
        body = safetensors.numpy.save({"hashes": self.hashes_M, "contents": self.contents_M, "known": self.known_M})
        write_atomic(path, body + hashlib.sha256(body).digest())


def read_memory(path: Path) -> RowMemory | None:
    """What `RowMemory.write` kept; none where the file is missing or damaged."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        return None
    tensors = safetensors.numpy.load(body)
    return RowMemory(tensors["hashes"], tensors["contents"], tensors["known"])

"""Words that name a view: raw Philox 4x64-10 output keyed by (seed, view, sample, op).

Key words `(seed, 0)`; counter words `(block, slot, view, id)`. `block` starts at 0 and only the generator advances it:
NumPy steps the counter before its first block, so the first word of a slot is word 0 of block 1.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import PolicyError

MAX_SEED = 2**63 - 1


class WordSource:
    """The words of one seed, from one generator whose state is set anew for each slot (a tenth of building one).

    Args:
        seed: 0..2**63 - 1.

    Raises: PolicyError for a seed out of range.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed <= MAX_SEED:
            raise PolicyError(f"seed {seed} is out of range; take one in 0..2**63 - 1")
        self.seed = seed
        self._generator = np.random.Philox(key=0)
        self._lock = self._generator.lock
        self._position = {"counter": (0, 0, 0, 0), "key": (seed, 0)}
        # The state setter reads plain ints faster than it reads arrays.
        self._state: Any = {
            "bit_generator": "Philox",
            "state": self._position,
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,  # an empty buffer: the next word opens a new block
            "has_uint32": 0,
            "uinteger": 0,
        }

    def words(self, view: int, id_hash: int, slot: int, count: int) -> list[int]:
        """The first `count` words (each 0..2**64 - 1) of one slot of one view of one sample."""
        with self._lock:
            self._position["counter"] = (0, slot, view, id_hash)
            self._generator.state = self._state
            if count == 1:
                return [self._generator.random_raw()]  # a number, of which no array is made
            words: list[int] = self._generator.random_raw(count).tolist()
        return words

    def __reduce__(self) -> tuple[type[WordSource], tuple[int]]:
        return WordSource, (self.seed,)


def words(seed: int, view: int, id_hash: int, slot: int, count: int) -> NDArray[np.uint64]:
    """The first `count` words of one slot as an array; for many of them keep a `WordSource`."""
    return np.array(WordSource(seed).words(view, id_hash, slot, count), dtype=np.uint64)

"""The teacher's probability of a sample's hard label: in one byte (codec `log8`, version 1), or out of a record.

Shapes: B rows, K kept classes, N any number of values.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from buttress.store.codec import VALUES_256, nearest_codes

LOG_CODEC: Final = "log8"
LOG_CODEC_VERSION: Final = 1
_HALF_STEP = 1e6 ** (0.5 / 254)  # codes are equal steps of the logarithm


def encode_log8(values_N: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Codes `[N]` of probabilities 0..1: 0 is exactly 0, what lies between 0 and 1e-6 becomes 1e-6."""
    return nearest_codes(np.asarray(values_N, np.float64))


def decode_log8(codes_N: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What codes stand for, float32 `[N]`: at most 2.8 % from what was encoded (of values from 1e-6)."""
    return VALUES_256.take(codes_N)


def distance_from_log8(values_N: NDArray[np.floating[Any]], read_N: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far probabilities lie outside of those that would have been read back as `read_N`, float64 `[N]`."""
    values, read = np.asarray(values_N, np.float64), read_N.astype(np.float64)
    low_N = np.where(read_N <= VALUES_256[1], 0.0, read / _HALF_STEP)
    distance_N: NDArray[np.float64] = np.maximum(np.maximum(low_N - values, values - read * _HALF_STEP), 0)
    return distance_N


def truth_of_targets(
    values_BK: NDArray[np.float32],
    ids_BK: NDArray[np.int32],
    rest_B: NDArray[np.float32],
    *,
    labels_B: NDArray[np.int32],
    classes: int,
) -> NDArray[np.float32]:
    """What targets say of one class per row, float32 `[B]`; NaN where the label is -1.

    Args:
        values_BK, ids_BK, rest_B: as `Reinforcement.targets` gives them.
        labels_B: that class, -1 = none.
        classes: C; the rest is spread evenly over the C - K that are not stored.
    """
    share_B = rest_B / np.float32(max(classes - values_BK.shape[1], 1))
    found_BK = ids_BK == labels_B[:, None]
    stored_B = (values_BK * found_BK).sum(axis=1)
    truth_B = np.where(found_BK.any(axis=1), stored_B, share_B).astype(np.float32)
    return np.where(labels_B >= 0, truth_B, np.float32(np.nan))

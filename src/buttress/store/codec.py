"""The record of one view: the teacher's k largest probabilities in a few bytes (codec `topk-log8`, version 1).

Shapes: B records, K = k kept classes, C classes, S bytes a record (the stride), V value bytes of a record.

A row of probabilities is k + 1 masses: p1 >= ... >= pk, and the rest. The larger of p1 and the rest is implied (1 minus
the others); the others are 8-bit logs over 1e-6..1. Implying p1 alone would lose up to 0.17 nat on flat rows, where
p1 is smaller than the rounding error of the rest. Byte layout, formulas and a worked example: docs/format.md.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError

CODEC: Final = "topk-log8"
CODEC_VERSION: Final = 1
MAX_CLASSES: Final = 65_536
SUM_TOLERANCE: Final = 1e-3
"""How far a row of probabilities may sum from 1; half-precision softmax stays inside."""

_SMALLEST = 1e-6
_CODES = 254  # steps between code 1 (1e-6) and code 255 (1)
_LOG_STEP = -math.log(_SMALLEST) / _CODES


def _values_of_codes() -> NDArray[np.float32]:
    codes = np.arange(256)
    values = np.exp((codes - 255) * _LOG_STEP)
    values[0] = 0
    rounded: NDArray[np.float32] = values.astype(np.float32)
    return rounded


VALUES_256: Final = _values_of_codes()
"""What each code stands for: 0, then 1e-6 ** ((255 - code) / 254)."""
_VALUES_LIST: list[float] = VALUES_256.tolist()


class TopKLog8:
    """Writes and reads records of fixed stride.

    Args:
        k: classes kept, 1..C.
        classes: C, 2..65,536.

    Raises:
        StoreError: k or C out of range.
    """

    def __init__(self, k: int, classes: int) -> None:
        if not 2 <= classes <= MAX_CLASSES:
            raise StoreError(f"{classes:,} classes: the codec {CODEC} holds 2 to {MAX_CLASSES:,}")
        if not 1 <= k <= classes:
            raise StoreError(f"k = {k}: choose 1 to {classes:,}, the number of classes")
        self.k, self.classes = k, classes
        self._has_rest = k < classes
        self._id_bits = (classes - 1).bit_length()
        self._value_bytes = k if self._has_rest else k - 1
        self._packed_bits = k * self._id_bits + self._has_rest
        self.stride = self._value_bytes + (self._packed_bits + 7) // 8
        self._plan_unpacking()
        self._id_shifts = [i * self._id_bits for i in range(k)]
        self._id_mask = (1 << self._id_bits) - 1

    def __repr__(self) -> str:
        return f"TopKLog8(k={self.k}, classes={self.classes})"

    def __reduce__(self) -> tuple[type[TopKLog8], tuple[int, int]]:
        return TopKLog8, (self.k, self.classes)

    def _plan_unpacking(self) -> None:
        """Every field of the packed bits lies in 4 bytes from a known one; past the end, the last byte stands in."""
        widths = [self._id_bits] * self.k + [1] * self._has_rest
        starts = np.arange(len(widths)) * self._id_bits
        bytes_F4 = self._value_bytes + starts[:, None] // 8 + np.arange(4)
        self._field_bytes = np.minimum(bytes_F4, self.stride - 1).astype(np.intp).ravel()
        self._field_shifts = (starts % 8).astype(np.uint32)
        self._field_masks = np.array([(1 << width) - 1 for width in widths], np.uint32)

    def encode(self, values_BK: NDArray[np.floating], ids_BK: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Records `[B, stride]` of the `k` largest probabilities and their class ids, as `top_k` gives them.

        Args:
            values_BK: probabilities, 0..1, descending; a row sums to at most 1 (to exactly 1 where k = C), +- 1e-3.
            ids_BK: class ids 0..C-1, distinct within a row.

        Raises:
            StoreError: anything else, naming the row.
        """
        masses_BM = self._masses(np.asarray(values_BK, np.float64))
        ids = np.asarray(ids_BK)
        self._check_ids(ids)
        first_B, rest_B = masses_BM[:, 0], masses_BM[:, self.k]
        coded_BV = masses_BM[:, 1 : self.k]
        if self._has_rest:
            coded_BV = np.concatenate([np.minimum(first_B, rest_B)[:, None], coded_BV], axis=1)
        codes_BV = _best_codes(coded_BV, np.maximum(first_B, rest_B))
        return np.concatenate([codes_BV, self._pack(ids, first_B >= rest_B)], axis=1)

    def _masses(self, values_BK: NDArray[np.float64]) -> NDArray[np.float64]:
        """`[B, K + 1]`: the values and the rest, summing to 1."""
        if values_BK.ndim != 2 or values_BK.shape[1] != self.k:
            raise StoreError(f"values of shape {values_BK.shape}: expected [B, {self.k}]")
        total_B = values_BK.sum(axis=1)
        low = -np.inf if self._has_rest else 1 - SUM_TOLERANCE
        good_BK = (values_BK >= 0) & (values_BK <= 1 + SUM_TOLERANCE)  # false for NaN
        good_BK[:, 1:] &= values_BK[:, 1:] <= values_BK[:, :-1]
        good_B = good_BK.all(axis=1) & (values_BK[:, 0] > 0) & (total_B >= low) & (total_B <= 1 + SUM_TOLERANCE)
        if not good_B.all():
            row = int(np.argmin(good_B))
            raise StoreError(f"row {row}: {values_BK[row]} are not the {self.k} largest of probabilities that sum to 1")
        scale_B = np.maximum(total_B, 1) if self._has_rest else total_B
        rest_B = np.maximum(1 - total_B, 0) if self._has_rest else np.zeros_like(total_B)
        return np.concatenate([values_BK / scale_B[:, None], rest_B[:, None]], axis=1)

    def _check_ids(self, ids_BK: NDArray[np.integer]) -> None:
        if not ids_BK.size:
            return
        sorted_BK = np.sort(ids_BK, axis=1)
        inside = sorted_BK[:, 0].min() >= 0 and sorted_BK[:, -1].max() < self.classes
        if ids_BK.shape[1] != self.k or not inside or (sorted_BK[:, 1:] == sorted_BK[:, :-1]).any():
            raise StoreError(f"class ids must be {self.k} distinct numbers from 0 to {self.classes - 1} in every row")

    def _pack(self, ids_BK: NDArray[np.integer], first_implied_B: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Ids, lowest bit first, then the flag "p1 is implied"."""
        places = np.arange(self._id_bits, dtype=np.uint32)
        bits_BKW = (ids_BK.astype(np.uint32)[:, :, None] >> places) & 1
        bits_BP = bits_BKW.astype(np.uint8).reshape(len(ids_BK), -1)
        if self._has_rest:
            bits_BP = np.concatenate([bits_BP, first_implied_B[:, None]], axis=1, dtype=np.uint8, casting="unsafe")
        return np.packbits(bits_BP, axis=1, bitorder="little")

    def decode(
        self, records_BS: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        """What the records say: `values [B, K]` and `ids [B, K]` in the teacher's order, and the rest's mass `[B]`.

        Nothing is negative and values and rest sum to 1. Absent records give numbers without meaning (`absent`).
        """
        quads = records_BS.take(self._field_bytes, axis=1).view("<u4")
        fields_BF = (quads >> self._field_shifts) & self._field_masks
        coded_BV = VALUES_256.take(records_BS[:, : self._value_bytes])
        sum_B = coded_BV.sum(axis=1)
        # The implied mass is the largest, or nearly: rounding must not push it below the others, let alone below 0.
        largest_B = coded_BV[:, :2].max(axis=1)
        implied_B = np.maximum(1 - sum_B, largest_B)
        scale_B = 1 / (sum_B + implied_B)
        implied_B *= scale_B
        coded_BV *= scale_B[:, None]
        if not self._has_rest:
            values_BK = np.concatenate([implied_B[:, None], coded_BV], axis=1)
            return values_BK, fields_BF.astype(np.int32), np.zeros_like(implied_B)
        first_implied_B = fields_BF[:, self.k] != 0
        smaller_B = coded_BV[:, 0].copy()
        rest_B = np.where(first_implied_B, smaller_B, implied_B)
        coded_BV[:, 0] = np.where(first_implied_B, implied_B, smaller_B)
        return coded_BV, fields_BF[:, : self.k].astype(np.int32), rest_B

    def decode_one(self, record: bytes) -> tuple[list[float], list[int], float]:
        """`decode` of one record, 3 times as fast as a batch of one; equal up to the rounding of float32."""
        coded = [_VALUES_LIST[code] for code in record[: self._value_bytes]]
        packed = int.from_bytes(record[self._value_bytes :], "little")
        mask = self._id_mask
        ids = [packed >> shift & mask for shift in self._id_shifts]
        total = sum(coded)
        implied = max(1 - total, max(coded))
        total += implied
        if not self._has_rest:
            return [implied / total, *(value / total for value in coded)], ids, 0.0
        smaller, coded[0] = coded[0], implied
        values = [value / total for value in coded]
        if packed >> (self.k * self._id_bits) & 1:
            return values, ids, smaller / total
        rest, values[0] = values[0], smaller / total
        return values, ids, rest

    def ids_hold(self, records_BS: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which records `[B]` hold k distinct class ids below C, as all that `encode` wrote do; absent ones may not."""
        sorted_BK = np.sort(self.decode(records_BS)[1], axis=1)
        distinct_B = (sorted_BK[:, 1:] != sorted_BK[:, :-1]).all(axis=1)
        hold_B: NDArray[np.bool_] = distinct_B & (sorted_BK[:, -1] < self.classes)
        return hold_B

    @staticmethod
    def absent(records_BS: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which records `[B]` hold nothing (an image that could not be decoded): those that are all zero.

        No record that holds something is all zero. With k > 1, one of its distinct class ids is not 0. With k = 1, if
        p1 is implied the flag is set; if the rest is implied, p1's code is there, and p1 > 0 has a code above 0.
        """
        absent_B: NDArray[np.bool_] = ~np.any(records_BS, axis=-1)
        return absent_B


def nearest_codes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The code whose logarithm is nearest to each value's, 1..255; 0 for exactly 0."""
    with np.errstate(divide="ignore"):
        places = np.log(values) / _LOG_STEP + 255
    return np.where(values == 0, 0, np.clip(np.floor(places + 0.5), 1, 255)).astype(np.uint8)


def _best_codes(coded_BV: NDArray[np.float64], implied_B: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Codes `[B, V]` of the masses: of some roundings, the one with the smallest KL(masses || read back) per row.

    Rounding each to the nearest lets the errors add up in the implied mass: 5e-3 nat on some flat rows with k near C.
    """
    with np.errstate(divide="ignore"):
        places_BV = np.log(coded_BV) / _LOG_STEP + 255
    zero_BV = coded_BV == 0
    codes_BV = np.zeros(coded_BV.shape, np.uint8)
    least_B = np.full(len(coded_BV), np.inf)
    for offsets_V in _roundings(coded_BV.shape[1]):
        tried_BV = np.where(zero_BV, 0, np.clip(np.floor(places_BV + offsets_V), 1, 255)).astype(np.uint8)
        loss_B = _loss(tried_BV, coded_BV, implied_B)
        better_B = loss_B < least_B
        codes_BV[better_B] = tried_BV[better_B]
        least_B = np.where(better_B, loss_B, least_B)
    return codes_BV


def _roundings(count: int) -> NDArray[np.float64]:
    """What to add before the floor, `[R, V]`: the same for all values, from floor to ceiling, and falling along them.

    The falling ones round some of equal values up and some down, and keep the order of unequal ones.
    """
    common_R = np.linspace(0, 1, 17)[:, None]
    falling_V = 0.5 - (np.arange(count) + 0.5) / count
    return np.concatenate([np.broadcast_to(common_R, (17, count)), np.clip(common_R + falling_V, 0, 1)])


def _loss(
    codes_BV: NDArray[np.uint8], coded_BV: NDArray[np.float64], implied_B: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cross-entropy of the masses under what the codes read back as: KL up to a constant of the row."""
    values_BV = VALUES_256.take(codes_BV).astype(np.float64)
    sum_B = values_BV.sum(axis=1)
    read_B = np.maximum(1 - sum_B, values_BV.max(axis=1, initial=0))
    logs_BV = (codes_BV.astype(np.float64) - 255) * _LOG_STEP
    loss_B: NDArray[np.float64] = np.log(sum_B + read_B) - (coded_BV * logs_BV).sum(axis=1) - implied_B * np.log(read_B)
    return loss_B


def top_k(probabilities_BC: NDArray[np.floating], k: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The `k` largest probabilities of each row and their class ids, `[B, k]` each.

    Descending by value, equal values by ascending class id, so the same numbers give the same record everywhere.

    Raises:
        StoreError: a row is not a distribution (not finite, outside 0..1, not summing to 1 +- 1e-3); names it.
    """
    probabilities = np.asarray(probabilities_BC, np.float32)
    total_B = probabilities.sum(axis=1, dtype=np.float64)
    good_B = ((probabilities >= 0) & (probabilities <= 1 + SUM_TOLERANCE)).all(axis=1)
    good_B &= np.abs(total_B - 1) <= SUM_TOLERANCE
    if not good_B.all():
        row = int(np.argmin(good_B))
        low, high = probabilities[row].min(), probabilities[row].max()
        raise StoreError(
            f"row {row} of the teacher's answer is not a distribution: values {low:.4g} to {high:.4g}, "
            f"sum {total_B[row]:.6g}; a teacher must return probabilities (softmax its logits)"
        )
    classes = probabilities.shape[1]
    # Bits of floats that are not negative sort as the floats do (+ 0 turns -0 into 0); below them, the id descending.
    bits_BC = (probabilities + np.float32(0)).view(np.uint32).astype(np.uint64)
    keys_BC = bits_BC << np.uint64(32) | np.arange(classes - 1, -1, -1, dtype=np.uint64)
    keys_BK = np.sort(np.partition(keys_BC, classes - k, axis=1)[:, classes - k :], axis=1)[:, ::-1]
    ids_BK = classes - 1 - (keys_BK & np.uint64(0xFFFFFFFF)).astype(np.int32)
    return np.take_along_axis(probabilities, ids_BK, axis=1), ids_BK

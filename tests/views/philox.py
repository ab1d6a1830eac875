"""Philox 4x64-10 in plain integers, after Salmon et al. (SC'11): what another language would write."""

from __future__ import annotations

MASK = 2**64 - 1
MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


def philox_block(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Four words of one block."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (product1 >> 64) ^ c1 ^ k0, product1 & MASK, (product0 >> 64) ^ c3 ^ k1, product0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def reference_words(seed: int, view: int, id_hash: int, slot: int, count: int) -> list[int]:
    """Words 0.. of block 1, 2, ...: block 0 is never drawn."""
    words: list[int] = []
    block = 1
    while len(words) < count:
        words += philox_block((block, slot, view, id_hash), (seed, 0))
        block += 1
    return words[:count]

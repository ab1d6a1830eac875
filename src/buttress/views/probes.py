"""Sixteen small views of made images: they tell whether this machine's renderer draws what the labelling one drew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.views.policy import Policy
from buttress.views.render import Picture, Renderer

PROBES = 16
PROBE_SIZE = 64
PROBE_ID_HASH = 0x7072_6F62_6573_0001


def probe_image() -> NDArray[np.uint8]:
    """The made image, uint8 [144, 192, 3], by integer arithmetic only: flat patches with hard edges, stripes, a slope.

    Mostly flat, so that its views pack into some 30 kB: the probes of a small store must not outweigh it.
    """
    y, x = np.mgrid[0:144, 0:192].astype(np.uint32)
    cells = ((x // 36) * 73856093) ^ ((y // 36) * 19349663)
    cells = (cells ^ (cells >> 13)) * 1274126177
    image = np.stack([(cells >> shift) & 255 for shift in (24, 16, 8)], axis=-1)
    slope = (x >= 144) & (y >= 96)
    image[slope] = np.stack([x * 255 // 191, y * 255 // 143, (x + y) * 255 // 334], axis=-1)[slope]
    image[(x.astype(np.int64) - 66) ** 2 + (y.astype(np.int64) - 60) ** 2 < 30**2] = (90, 40, 210)
    image[(y > 112) & (x < 80) & ((x + 2 * y) % 16 < 7)] = (235, 200, 30)
    return image.astype(np.uint8)


def probe_picture(row: int) -> Picture:
    """Image and id hash of row 0..15: the made image, moved round its borders; row 0 is the image itself."""
    return np.roll(probe_image(), (9 * row, 12 * row), axis=(0, 1)), PROBE_ID_HASH + row


def probe_views(policy: Policy, seed: int) -> NDArray[np.uint8]:
    """Views 0..15 of row 0, under a policy and seed, mixed where the policy mixes: uint8 [16, 64, 64, 3]."""
    return Renderer(policy, seed, PROBES).views(*probe_picture(0), range(PROBES), PROBE_SIZE, probe_picture)


def compare_probes(stored: NDArray[np.uint8], fresh: NDArray[np.uint8]) -> float:
    """Mean absolute difference in grey levels; 0.0 means equal.

    Raises: StoreError when `stored` is not [16, 64, 64, 3] uint8.
    """
    if stored.shape != fresh.shape or stored.dtype != np.uint8:
        raise StoreError(f"probe views are {stored.dtype}{list(stored.shape)}, want uint8{list(fresh.shape)}")
    return float(np.abs(stored.astype(np.int16) - fresh).mean())

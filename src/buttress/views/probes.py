"""Sixteen small views of a made image: they tell whether this machine's renderer draws what the labelling one drew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.views.policy import Policy
from buttress.views.render import Renderer

PROBES = 16
PROBE_SIZE = 64
PROBE_ID_HASH = 0x7072_6F62_6573_0001


def probe_image() -> NDArray[np.uint8]:
    """The made image, uint8 [144, 192, 3], by integer arithmetic only: edges, slopes, texture and colour."""
    y, x = np.mgrid[0:144, 0:192].astype(np.uint32)
    slope = np.stack([x * 255 // 191, y * 255 // 143, (x + y) * 255 // 334], axis=-1)
    checks = np.where(((x // 12 + y // 12) % 2)[..., None] == 0, slope, 255 - slope)
    # A disc and stripes with hard edges, and a corner of texture from an integer hash.
    disc = (x.astype(np.int64) - 66) ** 2 + (y.astype(np.int64) - 60) ** 2 < 44**2
    checks[disc] = slope[disc] * np.array([1, 0, 2]) // 2 + np.array([90, 40, 10])
    stripes = (y > 96) & (x < 110)
    checks[stripes & ((x + 2 * y) % 9 < 4)] = (235, 200, 30)
    noise = (x * 73856093) ^ (y * 19349663)
    noise = ((noise ^ (noise >> 13)) * 1274126177) >> 24
    texture = (x > 128) & (y > 64)
    checks[texture] = (checks[texture] + noise[texture][:, None] * np.array([2, 1, 1])) // 3
    return np.minimum(checks, 255).astype(np.uint8)


def probe_views(policy: Policy, seed: int) -> NDArray[np.uint8]:
    """Views 0..15 of the made image under a policy and seed: uint8 [16, 64, 64, 3]."""
    return Renderer(policy, seed).views(probe_image(), PROBE_ID_HASH, range(PROBES), PROBE_SIZE)


def compare_probes(stored: NDArray[np.uint8], fresh: NDArray[np.uint8]) -> float:
    """Mean absolute difference in grey levels; 0.0 means equal.

    Raises: StoreError when `stored` is not [16, 64, 64, 3] uint8.
    """
    if stored.shape != fresh.shape or stored.dtype != np.uint8:
        raise StoreError(f"probe views are {stored.dtype}{list(stored.shape)}, want uint8{list(fresh.shape)}")
    return float(np.abs(stored.astype(np.int16) - fresh).mean())

"""Who a sample is: 64-bit hashes of its id and of its content, and the fingerprint of a whole source.

All are BLAKE2b (RFC 7693) without a key. 64-bit hashes are 8-byte digests read as little-endian integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.sources.source import Source, nfc


def _id_digest(sample_id: str) -> bytes:
    return blake2b(nfc(sample_id).encode(), digest_size=8).digest()


def id_hash(sample_id: str) -> int:
    """The id as a 64-bit number: BLAKE2b-8 of its NFC UTF-8, little-endian. It keys the sample's views."""
    return int.from_bytes(_id_digest(sample_id), "little")


def id_hashes(sample_ids: Iterable[str]) -> NDArray[np.uint64]:
    """`id_hash` of many ids: uint64 [N]."""
    return np.frombuffer(b"".join(map(_id_digest, sample_ids)), "<u8").astype(np.uint64)


def content_hash(data: bytes | NDArray[Any]) -> int:
    """A 64-bit hash of what an image holds: BLAKE2b-8 of the encoded bytes, little-endian.

    An array is hashed as the ASCII text `dtype[H,W,...]` followed by its elements in C order, little-endian.
    """
    if isinstance(data, bytes):
        return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
    header = f"{data.dtype.name}[{','.join(map(str, data.shape))}]".encode()
    elements = np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()
    return int.from_bytes(blake2b(header + elements, digest_size=8).digest(), "little")


def content_ids(hashes: Iterable[int]) -> tuple[str, ...]:
    """Ids of images that have no name: 16 hex digits of the content hash; repeats get `.1`, `.2` in order."""
    seen: dict[int, int] = {}
    ids = []
    for value in hashes:
        repeat = seen.get(value, 0)
        seen[value] = repeat + 1
        ids.append(f"{value:016x}.{repeat}" if repeat else f"{value:016x}")
    return tuple(ids)


def fingerprint(source: Source) -> str:
    """64 hex digits over the ids in order: BLAKE2b-32 of each id's length (8 bytes, little-endian) and NFC UTF-8."""
    digest = blake2b(digest_size=32)
    for sample_id in source.ids:
        text = nfc(sample_id).encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()

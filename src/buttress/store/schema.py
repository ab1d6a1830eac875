"""Strict reading of JSON objects: every key there, of its type, and none beside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from buttress.errors import StoreError

MAX_COUNT = 2**32 - 1
"""Rows and views are numbers below 2**32."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_keys(value: Any, place: str, kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """`value` as an object with exactly the keys of `kinds`, each of its type (a bool is no int).

    Raises:
        StoreError: naming place and key.
    """
    if not isinstance(value, dict):
        raise StoreError(f"{place}: not a JSON object")
    if missing := sorted(kinds.keys() - value.keys()):
        raise StoreError(f"{place}: the key {missing[0]!r} is missing")
    if unknown := sorted(value.keys() - kinds.keys()):
        raise StoreError(f"{place}: the key {unknown[0][:80]!r} is not known to this version of buttress")
    for key, kind in kinds.items():
        if not isinstance(value[key], kind) or isinstance(value[key], bool):
            raise StoreError(f"{place}: {key!r} is of the wrong type ({type(value[key]).__name__})")
    return value


def check_count(value: Any, place: str, low: int = 0, high: int = MAX_COUNT) -> int:
    """`value` as a whole number in `low..high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise StoreError(f"{place}: {str(value)[:40]} is not a whole number from {low} to {high}")
    return value


def check_range(value: Any, place: str) -> tuple[int, int]:
    """`value` as `[start, stop)`, not empty."""
    if not isinstance(value, list) or len(value) != 2:
        raise StoreError(f"{place}: not a pair [start, stop]")
    start = check_count(value[0], place)
    return start, check_count(value[1], place, low=start + 1)


def check_strings(value: Any, place: str) -> tuple[str, ...]:
    """`value` as a list of strings."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise StoreError(f"{place}: not a list of strings")
    return tuple(value)


def check_versions(value: Any, place: str) -> dict[str, str]:
    """`value` as an object of strings."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise StoreError(f"{place}: not an object of strings")
    return value


def check_sha256(value: Any, place: str) -> str:
    """`value` as 64 lower-case hex digits."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise StoreError(f"{place}: not a SHA-256 in hex")
    return value

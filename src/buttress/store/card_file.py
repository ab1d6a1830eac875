"""Reading a card back from `reinforcement.json`, believing nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from buttress.errors import PolicyError, StoreError
from buttress.files import json_bytes, parse_json
from buttress.store.card import (
    FORMAT,
    FORMAT_VERSION,
    Card,
    Field,
    PartEntry,
    Probes,
    RendererId,
    SourceInfo,
    json_digest,
)
from buttress.store.damage import DamageError, read_regular
from buttress.store.part import PART_NAME, part_name
from buttress.store.schema import (
    check_count,
    check_keys,
    check_range,
    check_sha256,
    check_strings,
    check_versions,
)
from buttress.views.policy import Policy

CARD_NAME: Final = "reinforcement.json"
_MAX_CARD_BYTES = 64 * 1024 * 1024
_MEND = "restore it, or delete it and run the same buttress reinforce command again (finished parts are kept)"


def read_card(folder: Path) -> Card:
    """Read and check `reinforcement.json`.

    Raises:
        StoreError: there is none, or it is of a newer format.
        DamageError: it is damaged or contradicts itself.
    """
    path = folder / CARD_NAME
    if not path.exists() and not path.is_symlink():
        raise StoreError(
            f"{folder}: no reinforcement here ({CARD_NAME} is missing); buttress reinforce writes it last, so run the "
            "same buttress reinforce command again to finish a labelling that was cut off"
        )
    data = read_regular(path, _MAX_CARD_BYTES)
    try:
        value = parse_json(data, "JSON", StoreError)
    except StoreError as failure:
        raise DamageError(path, "file", str(failure), _MEND) from failure
    _check_format(value, path)
    if not _is_as_written(value, data):
        raise DamageError(path, "digest", "its contents have been changed or damaged", _MEND)
    del value["digest"]
    try:
        return _card_from_json(value)
    except (StoreError, PolicyError) as failure:
        raise DamageError(path, "contents", str(failure), _MEND) from failure


def _is_as_written(value: dict[str, Any], data: bytes) -> bool:
    """Whether `data` is the canonical JSON of `value`, and its digest fits."""
    body = {key: item for key, item in value.items() if key != "digest"}
    try:
        return value.get("digest") == json_digest(body) and json_bytes(value) == data
    except ValueError:  # half a surrogate pair, or a number as large as infinity: canonical JSON has neither
        return False


def _check_format(value: Any, path: Path) -> None:
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DamageError(path, "format", f"not the card of a reinforcement (its format is not {FORMAT!r})", _MEND)
    version = value.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{path}: format {version} is newer than this buttress, which reads format {FORMAT_VERSION}; "
            "install a newer buttress (pip install --upgrade buttress)"
        )
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise DamageError(
            path, "version", f"{str(version)[:40]!r} is no format; this buttress reads {FORMAT_VERSION}", _MEND
        )


def _card_from_json(value: dict[str, Any]) -> Card:
    check_keys(
        value,
        "card",
        {
            **dict.fromkeys(("format",), str),
            **dict.fromkeys(("version", "seed", "views", "k"), int),
            **dict.fromkeys(("classes", "fields", "teachers", "skipped", "parts"), list),
            **dict.fromkeys(("policy", "renderer", "probes", "source", "labelling", "versions"), dict),
        },
    )
    if not all(isinstance(teacher, dict) for teacher in value["teachers"]):
        raise StoreError("teachers: not a list of objects")
    return Card(
        seed=check_count(value["seed"], "seed", high=2**63 - 1),
        views=check_count(value["views"], "views", low=1),
        k=check_count(value["k"], "k", low=1),
        classes=check_strings(value["classes"], "classes"),
        policy=Policy.from_json(value["policy"]),
        renderer=RendererId(**check_keys(value["renderer"], "renderer", {"id": str, "version": int})),
        probes=_probes(value["probes"]),
        source=_source(value["source"]),
        fields=tuple(_field(item, f"fields[{i}]") for i, item in enumerate(value["fields"])),
        teachers=tuple(value["teachers"]),
        labelling=value["labelling"],
        versions=check_versions(value["versions"], "versions"),
        skipped=check_strings(value["skipped"], "skipped"),
        parts=tuple(_part(item, f"parts[{i}]") for i, item in enumerate(value["parts"])),
    )


def _probes(value: Any) -> Probes:
    check_keys(value, "probes", {"sha256": str, "versions": dict})
    versions = check_versions(value["versions"], "probes.versions")
    return Probes(sha256=check_sha256(value["sha256"], "probes.sha256"), versions=versions)


def _source(value: Any) -> SourceInfo:
    check_keys(value, "source", {"uri": str, "count": int, "fingerprint": str, "rows": int})
    check_count(value["count"], "source.count", low=1)
    return SourceInfo(**value)


def _field(value: Any, place: str) -> Field:
    kinds: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("name", "codec", "dtype", "per"), str),
        "version": int,
        "shape": list,
        "teacher": (int, type(None)),
    }
    check_keys(value, place, kinds)
    shape = tuple(check_count(size, f"{place}.shape") for size in value["shape"])
    return Field(**{**value, "shape": shape})


def _part(value: Any, place: str) -> PartEntry:
    check_keys(value, place, {"name": str, "rows": list, "views": list, "sha256": str})
    name = value["name"]
    rows, views = check_range(value["rows"], f"{place}.rows"), check_range(value["views"], f"{place}.views")
    if not PART_NAME.fullmatch(name) or name != part_name(int(name[5:10]), views[0]):
        raise StoreError(f"{place}: {name[:80]!r} is not the name of a part of these views")
    return PartEntry(name=name, rows=rows, views=views, sha256=check_sha256(value["sha256"], f"{place}.sha256"))

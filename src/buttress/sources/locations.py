"""What stands behind the scheme of a source URI: a path or a pattern, here or in a store, and a query."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from urllib.parse import unquote

from buttress.errors import SourceError
from buttress.nearest import did_you_mean
from buttress.sources.remote import files_matching, is_folder, is_remote

MAX_FILES = 100_000
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")


def split_query(scheme: str, location: str, known: Sequence[str]) -> tuple[str, dict[str, str]]:
    """`PATH?key=value&...` -> the path, and the value of each key. A `?` without `=` behind it belongs to a glob.

    Args:
        scheme: of the URI, for errors.
        location: what stands behind the scheme.
        known: keys that are allowed.

    Raises: `SourceError` for an unknown, empty or repeated key.
    """
    path, mark, query = location.rpartition("?")
    if not mark or "=" not in query:
        return location, {}
    chosen: dict[str, str] = {}
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key not in known:
            listed = f"(known are {', '.join(known)})"
            raise SourceError(f"{scheme}:{location}: unknown key {key!r} {listed}{did_you_mean(key, known)}")
        if key in chosen or not value:
            what = "column" if key in ("image", "label", "id") else "value"
            raise SourceError(f"{scheme}:{location}: {key}= must name one {what}, once")
        chosen[key] = unquote(value)
    return path, chosen


def absolute(path: str) -> str:
    """A local path from the root, so that it holds in every process; a URL as it is."""
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def files_of(path: str, ending: str) -> list[str]:
    """The files that a path means: the file itself, those in a folder that have the ending, or those of a glob; sorted.

    Local ones are absolute; there may be none.
    """
    full = absolute(path)
    if is_remote(full):
        if is_folder(full):
            return files_matching(f"{glob.escape(full.rstrip('/'))}/*{ending}")
        return files_matching(full) if glob.has_magic(full) else [full]
    if os.path.isfile(full):
        return [full]
    pattern = os.path.join(glob.escape(full), f"*{ending}") if os.path.isdir(full) else full
    return sorted(file for file in glob.glob(pattern, recursive=True) if os.path.isfile(file))


def expand_braces(pattern: str) -> list[str]:
    """`a{00..02}b{x,y}` -> `a00bx`, `a00by`, `a01bx`, ... as a shell does; a text without braces stands for itself.

    Raises: `SourceError` for more than 100,000 names, and for braces within braces.
    """
    if re.search(r"\{[^}]*\{", pattern):
        raise SourceError(f"{pattern}: braces within braces are not known; write the names out")
    names: list[str] = []
    pending = [pattern]
    while pending:
        name = pending.pop()
        brace = _first_brace(name)
        if brace is None:
            names.append(name)
        else:
            choices = brace[1].split(",") if brace.re is _CHOICE else _numbers(brace[1], brace[2])
            pending += [name[: brace.start()] + choice + name[brace.end() :] for choice in reversed(choices)]
        if len(names) + len(pending) > MAX_FILES:
            raise SourceError(f"{pattern}: its braces stand for more than {MAX_FILES:,} files")
    return names


def _first_brace(name: str) -> re.Match[str] | None:
    found = [match for match in (_RANGE.search(name), _CHOICE.search(name)) if match]
    return min(found, key=lambda match: match.start()) if found else None


def _numbers(first: str, last: str) -> list[str]:
    """From one to the other, padded where one of the two begins with a zero; one number too many where far too many."""
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    count = min(abs(int(last) - int(first)), MAX_FILES) + 1
    return [f"{int(first) + step * number:0{width}d}" for number in range(count)]

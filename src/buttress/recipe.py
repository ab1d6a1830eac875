"""A YAML recipe read strictly: a mapping of flag names to values, as text that the command line's parser then reads.

The YAML is only composed into nodes and never constructed into objects, so nothing in a recipe can run or be imported.
Tags, aliases and keys that stand twice are refused, with file and line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from buttress.errors import SettingsError
from buttress.signature import plain

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 16
# What plain scalars and collections resolve to; any other tag (`!!python/name:os.system`, `!mine`) is refused.
PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
}


class Entry(NamedTuple):
    """One leaf of a recipe.

    Attributes:
        key: dotted where mappings are nested.
        text: the value as a flag would give it.
        place: file and line, to begin an error with.
    """

    key: str
    text: str
    place: str


def read_recipe(path: Path, known: set[str]) -> list[Entry]:
    """The leaves of the recipe at `path`, each key once.

    Args:
        path: a YAML file.
        known: dotted keys that a recipe may hold; only the names before their dots may hold a mapping.

    Raises: SettingsError for a file that cannot be read, and for anything but a plain mapping.
    """
    branches = {key[:end] for key in known for end, letter in enumerate(key) if letter == "."}
    entries = list(_leaves(path, "", _root(path), branches))
    seen: set[str] = set()
    for entry in entries:
        if plain(entry.key) in seen:
            raise SettingsError(f"{entry.place}: the key {entry.key!r} stands twice; keep one")
        seen.add(plain(entry.key))
    return entries


class _Composer(yaml.SafeLoader):
    """Nodes without aliases, of plain tags, of bounded depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        place = f"line {self.peek_event().start_mark.line + 1}"  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise SettingsError(f"{place}: a recipe holds no aliases; write the value out")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SettingsError(f"{place}: nested deeper than {MAX_DEPTH}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in PLAIN_TAGS:
            raise SettingsError(f"{place}: the tag {node.tag!r} is not allowed; a recipe holds plain values")
        return node


def _root(path: Path) -> yaml.MappingNode:
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > MAX_CHARACTERS:
            raise SettingsError(f"longer than {MAX_CHARACTERS} characters, not a recipe")
        node = yaml.compose(text, Loader=_Composer)
        if not isinstance(node, yaml.MappingNode):
            raise SettingsError("a recipe is a mapping of flag names to values (`epochs: 80`)")
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    except OSError as error:
        raise SettingsError(f"{path}: the recipe cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    return node


def _leaves(path: Path, prefix: str, mapping: yaml.MappingNode, branches: set[str]) -> Iterator[Entry]:
    for key_node, value in mapping.value:
        place = f"{path}, line {key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise SettingsError(f"{place}: a key is a single word")
        key = prefix + key_node.value
        if isinstance(value, yaml.MappingNode) and plain(key) in branches:
            yield from _leaves(path, f"{key}.", value, branches)
        else:
            yield Entry(key, _text(value), place)


def _text(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return node.value or ("null" if node.tag.endswith(":null") else "")
    return yaml.serialize(_flow(node), width=sys.maxsize).strip()


def _flow(node: Any) -> Any:
    """The same collection, to be written on one line: `[a, b]`."""
    if isinstance(node, yaml.CollectionNode):
        node.flow_style = True
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                _flow(part)
    return node

"""From a teacher's classes to the source's: which of its outputs stand for which class of ours.

Shape legend: B views, T the teacher's classes, C the classes kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from buttress.errors import ModelError
from buttress.models.imagenet import english_names, is_wordnet_id, normalised
from buttress.nearest import did_you_mean
from buttress.terminal import note

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WAY_OUT = "say which by --class-map FILE.yaml"
OF_TEACHER = f"{_WAY_OUT}, or let buttress reinforce keep the teacher's own by --classes teacher"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassMap:
    """Which of the teacher's outputs belong to each class that is kept.

    classes: names of the C classes kept, None where nobody knows them.
    groups: for each of them its teacher indices, whose masses are summed; None keeps the teacher's outputs as they are.
    """

    classes: tuple[str, ...] | None
    groups: tuple[tuple[int, ...], ...] | None = None

    def describe(self, teacher_classes: Sequence[str] | None) -> dict[str, list[str | int]] | None:
        """For the card: class -> the teacher's classes (their indices where it names none); None = its own classes."""
        if self.groups is None:
            return None
        assert self.classes is not None
        return {
            name: [teacher_classes[index] if teacher_classes else index for index in group]
            for name, group in zip(self.classes, self.groups, strict=True)
        }

    def first_sum(self, teacher_classes: Sequence[str] | None) -> tuple[str, str] | None:
        """The first class kept that is a sum of several, and the names of these, to be told; None where none is."""
        for name, group in zip(self.classes or (), self.groups or (), strict=False):
            if len(group) != 1:
                return name, " + ".join(teacher_classes[index] if teacher_classes else str(index) for index in group)
        return None

    def project(self, logits_BT: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Softmax over the classes kept -> (probabilities [B, C] that sum to 1, unmapped mass [B]).

        It stays in log space, in float64: where next to nothing falls on the classes kept, their proportions are still
        right. A row with nothing at all on them is even.
        """
        logits = logits_BT.astype(np.float64)
        if self.groups is None:
            return _softmax(logits).astype(np.float32), np.zeros(len(logits))
        kept = np.stack([_log_sum_exp(logits[:, list(group)]) for group in self.groups], axis=1)
        with np.errstate(under="ignore"):
            unmapped = 1 - np.exp(_log_sum_exp(kept) - _log_sum_exp(logits))
        return _softmax(kept).astype(np.float32), np.clip(unmapped, 0, 1)


def _log_sum_exp(logits_BN: NDArray[np.float64]) -> NDArray[np.float64]:
    highest = logits_BN.max(axis=1)
    safe = np.where(np.isfinite(highest), highest, 0)
    with np.errstate(divide="ignore", under="ignore"):
        result: NDArray[np.float64] = safe + np.log(np.exp(logits_BN - safe[:, None]).sum(axis=1))
    return result


def _softmax(logits_BN: NDArray[np.float64]) -> NDArray[np.float64]:
    highest = logits_BN.max(axis=1, keepdims=True)
    shifted = np.where(np.isfinite(highest), logits_BN - np.where(np.isfinite(highest), highest, 0), 0)
    with np.errstate(under="ignore"):
        masses = np.exp(shifted)
    result: NDArray[np.float64] = masses / masses.sum(axis=1, keepdims=True)
    return result


def choose_classes(
    teacher_classes: tuple[str, ...] | None,
    *,
    mode: str,
    source_classes: tuple[str, ...] | None,
    class_map: Path | Mapping[str, Sequence[str | int]] | None,
    teacher: str,
    way_out: str = _WAY_OUT,
) -> ClassMap:
    """Decide what becomes of a teacher's outputs.

    teacher_classes: its class names, None where it does not say them (then the source's must be its outputs in order).
    mode: `source` or `teacher`. teacher: its URI, for messages, which also speak to those who score or fold a model.
    way_out: what they advise.

    Raises: ModelError, naming each source class without a match, with several, or that shares one with another class.
    """
    written, place = _written(class_map)
    if mode == "teacher":
        return ClassMap(classes=teacher_classes)
    if source_classes is None and not written:
        note(f"{teacher}: the images have no classes, so its own are kept")
        return ClassMap(classes=teacher_classes)
    wanted = tuple(written) if source_classes is None else source_classes
    for name in written:
        if name not in wanted:
            raise ModelError(f"{place}: {name!r} is not a class of the images{did_you_mean(name, wanted)}")
    if not written and teacher_classes in (None, wanted):
        return ClassMap(classes=wanted)
    groups = _groups(wanted, written, teacher_classes, teacher, place, way_out)
    _refuse_shared(wanted, groups, teacher_classes, teacher, way_out)
    return ClassMap(classes=wanted, groups=groups)


def _written(class_map: Path | Mapping[str, Sequence[str | int]] | None) -> tuple[dict[str, list[str | int]], str]:
    """A class map and the name it has in errors."""
    if class_map is None:
        return {}, ""
    if isinstance(class_map, Path):
        return read_class_map(class_map), str(class_map)
    return {name: list(entries) for name, entries in class_map.items()}, "class map"


def _groups(
    wanted: tuple[str, ...],
    written: Mapping[str, list[str | int]],
    teacher_classes: tuple[str, ...] | None,
    teacher: str,
    file: str,
    way_out: str,
) -> tuple[tuple[int, ...], ...]:
    index = _TeacherNames(teacher_classes or ())
    groups: list[tuple[int, ...]] = []
    lost: list[str] = []
    for name in wanted:
        if name in written:
            groups.append(tuple(_written_index(entry, index, name, file) for entry in written[name]))
            continue
        found = index.find(name)
        if len(found) != 1:
            lost.append(f"{name!r} ({' or '.join(index.label(i) for i in found) or index.nearest(name)})")
        groups.append(tuple(found))
    if lost:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise ModelError(f"{teacher}: no one class of its own for the images' {shown}; {way_out}")
    return tuple(groups)


class _TeacherNames:
    """Finds a teacher's class by its exact name, its WordNet id, or an English name."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._exact = {name: index for index, name in enumerate(classes)}
        self._usual: dict[str, list[int]] = {}
        self._synonyms: dict[str, list[int]] = {}
        for index, name in enumerate(classes):
            names = _names_of(name)
            self._usual.setdefault(names[0], []).append(index)
            for synonym in dict.fromkeys(names):
                self._synonyms.setdefault(synonym, []).append(index)

    def find(self, name: str) -> list[int]:
        """Indices of the teacher's classes that `name` can mean, by the strictest rule that finds any."""
        if name in self._exact:
            return [self._exact[name]]
        names = _names_of(name)
        for table in (self._usual, self._synonyms):
            for synonym in names:
                if synonym in table:
                    return table[synonym]
        return []

    def label(self, index: int) -> str:
        """A class as a person would know it: `n01440764 tench`."""
        name = self.classes[index]
        return f"{name} {english_names(name)[0]}" if is_wordnet_id(name) else name

    def nearest(self, name: str) -> str:
        """The teacher's class names nearest to `name`, for a message."""
        hint = did_you_mean(_names_of(name)[0], self._synonyms, count=3).removeprefix("; ").removesuffix("?")
        return hint or "nothing near"


def class_finder(classes: tuple[str, ...]) -> Callable[[str], list[int]]:
    """A function from a name to the numbers of the classes that it can mean, by the rules that maps are made by:
    its exact name, else its usual name, else a synonym; a WordNet id of ImageNet-1k has its English names.
    """
    return _TeacherNames(classes).find


def _names_of(name: str) -> list[str]:
    """Normalised names of a class, the usual one first: a WordNet id gives its English names, commas part synonyms."""
    parts = english_names(name) if is_wordnet_id(name) else name.split(",")
    return [normalised(part) for part in parts if normalised(part)] or [name]


def _written_index(entry: str | int, index: _TeacherNames, name: str, file: str) -> int:
    if isinstance(entry, int):
        if entry < 0 or (index.classes and entry >= len(index.classes)):
            raise ModelError(f"{file}: {name!r}: the model has no class number {entry} (it has {len(index.classes)})")
        return entry
    if not index.classes:
        raise ModelError(f"{file}: {name!r}: the model does not name its classes; give numbers instead of {entry!r}")
    found = index.find(entry)
    if len(found) != 1:
        known = " or ".join(index.label(i) for i in found) or index.nearest(entry)
        raise ModelError(f"{file}: {name!r}: {entry!r} is no one class of the model's ({known})")
    return found[0]


def _refuse_shared(
    wanted: tuple[str, ...],
    groups: tuple[tuple[int, ...], ...],
    teacher_classes: tuple[str, ...] | None,
    teacher: str,
    way_out: str,
) -> None:
    owner: dict[int, str] = {}
    for name, group in zip(wanted, groups, strict=True):
        for index in group:
            if index in owner:
                shared = teacher_classes[index] if teacher_classes else f"number {index}"
                both = f"{owner[index]!r} and {name!r}" if owner[index] != name else f"{name!r} twice"
                raise ModelError(f"{teacher}: its class {shared} would stand for {both}; {way_out}")
            owner[index] = name


def read_class_map(path: Path) -> dict[str, list[str | int]]:
    """Read a class map: YAML, `source class: teacher class` by name or number, or a list of them (summed).

    Returns: source class -> names or numbers of the teacher's classes, in the file's order.

    Raises: ModelError, where the file cannot be read or says something else.
    """
    import yaml

    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_strict_loader())  # a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as failure:
        raise ModelError(f"{path}: the class map cannot be read ({' '.join(str(failure).split())})") from failure
    if not isinstance(value, dict) or not value:
        raise ModelError(f"{path}: a class map has lines `source class: teacher class`")
    result: dict[str, list[str | int]] = {}
    for key, entry in value.items():
        entries = entry if isinstance(entry, list) else [entry]
        if type(key) not in (str, int) or not entries or not all(type(item) in (str, int) for item in entries):
            raise ModelError(f"{path}: {key!r}: {entry!r} is no name, number or list of them (quote words like no, on)")
        result[str(key)] = entries
    return result


def _strict_loader() -> Any:
    """A safe YAML loader that refuses a key that stands twice (PyYAML's own keeps the last and is silent)."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[Hashable] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep=deep)

    return StrictLoader

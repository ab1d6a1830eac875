"""Accuracy where several labels of an image may be right: top-1 counts where it is one of them.

An image without any right label cannot be judged, nor one whose right labels all lie outside of the classes that were
scored: the model could not have said them, and nothing that it could say is right. Both are left out and counted. Where
some of the right labels were scored, the image stays, and only these count.

ReaL labels: Beyer et al. 2020, "Are we done with ImageNet?", arXiv 2006.07159, whose accuracy this is.
Shapes: N samples, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SettingsError
from buttress.files import read_json
from buttress.metrics.evaluate import Evaluation
from buttress.metrics.intervals import Figure, figure, fraction
from buttress.models.imagenet import english_names, imagenet_classes, is_wordnet_id
from buttress.nearest import did_you_mean
from buttress.sources.imagenet_lists import timm_list
from buttress.teachers.classes import class_finder

REAL = "real"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSets:
    """The right labels of images.

    Args:
        place: where they come from, for errors.
        names: image -> its right classes, by name or WordNet id; may be none. An image is named by its sample id, its
            file name, or that without its ending.
        key: name of the figure.
        one_each: a file name may stand for one image only.
    """

    place: str
    names: Mapping[str, frozenset[str]]
    key: str = "multilabel_top1"
    one_each: bool = True

    def digest(self) -> str:
        """Of what is said of which image."""
        said = {image: sorted(names) for image, names in self.names.items()}
        return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()


def read_label_sets(asked: str | Path) -> LabelSets:
    """Read right labels.

    Args:
        asked: `real` for the ReaL labels of the 50,000 validation images of ImageNet-1k, as timm ships them; else a
            JSON file `{image: [class, ...]}`, images by sample id or file name, classes by name or WordNet id.

    Raises:
        SettingsError: the file cannot be read, or says something else.
        SourceError: timm has no ReaL labels.
    """
    if asked == REAL:
        return _real_labels()
    place = str(asked)
    value = read_json(Path(asked), SettingsError)
    if not isinstance(value, dict) or not value:
        ask = "; the ReaL labels are asked for as real" if isinstance(value, list) else ""
        raise SettingsError(f"{place}: right labels are a JSON object {{image: [class, ...]}}{ask}")
    return LabelSets(place=place, names=right_names(value, place))


def right_names(value: Mapping[str, Any], place: str) -> dict[str, frozenset[str]]:
    """What a JSON object says of the right labels of images.

    Raises: SettingsError, where one of them is no list of names.
    """
    for image, names in value.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SettingsError(f'{place}: {image!r}: right labels are a list of class names, e.g. ["n01440764"]')
    return {image: frozenset(names) for image, names in value.items()}


def _real_labels() -> LabelSets:
    classes = imagenet_classes()
    numbers = read_json(timm_list("imagenet_real_labels.json"), SettingsError)
    names = {
        f"ILSVRC2012_val_{image:08d}": frozenset(classes[number] for number in right)
        for image, right in enumerate(numbers, 1)
    }
    return LabelSets(place="ReaL labels", names=names, key="real_top1", one_each=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RightClasses:
    """Which of the classes scored are right for N samples.

    Args:
        names: for each sample all its right labels as they were written; None where nothing is told of it.
        numbers: for each sample the right ones among the C classes; None where it cannot be judged.
    """

    names: tuple[frozenset[str] | None, ...]
    numbers: tuple[frozenset[int] | None, ...]

    def of(self, places: Sequence[int]) -> RightClasses:
        """Of the samples at `places` alone."""
        return RightClasses(
            names=tuple(self.names[place] for place in places), numbers=tuple(self.numbers[place] for place in places)
        )

    def left_out(self) -> dict[str, int]:
        """How many samples are not judged: `empty`, no label is right; `outside`, no right label is one of the C
        classes; `absent`, nothing is told of them.
        """
        unjudged = [names for names, numbers in zip(self.names, self.numbers, strict=True) if numbers is None]
        absent, empty = unjudged.count(None), unjudged.count(frozenset())
        return {"empty": empty, "outside": len(unjudged) - absent - empty, "absent": absent}


def right_classes(sets: LabelSets, ids: Sequence[str], classes: tuple[str, ...]) -> RightClasses:
    """Find the right labels of samples among the classes that are scored; needs no predictions.

    Args:
        sets: the right labels.
        ids: N sample ids.
        classes: names of the C classes.

    Raises:
        SettingsError: no image in common, a name of several images, or a label that is no class or several.
    """
    keys = matched(sets.names, ids, sets.place, one_each=sets.one_each)
    require_some(keys, sets.names, ids, sets.place)
    finder = _ClassesByName(classes, sets.place)
    names = tuple(None if key is None else sets.names[key] for key in keys)
    found = (finder.numbers(each or frozenset(), sample_id) for each, sample_id in zip(names, ids, strict=True))
    return RightClasses(names=names, numbers=tuple(numbers or None for numbers in found))


def matched(known: Container[str], ids: Sequence[str], place: str, *, one_each: bool = True) -> list[str | None]:
    """For each of N sample ids the key that it is known by, or None: its id, its file name, or that without its ending.

    Raises: SettingsError, where a file name is that of two of them (`one_each`).
    """
    keys = [next((key for key in _keys(sample_id) if key in known), None) for sample_id in ids]
    owner: dict[str, str] = {}
    for key, sample_id in zip(keys, ids, strict=True):
        if key is not None and one_each and owner.setdefault(key, sample_id) != sample_id:
            raise SettingsError(f"{place}: {key!r} may be {owner[key]!r} or {sample_id!r}; name it by its sample id")
    return keys


def require_some(keys: Iterable[str | None], known: Iterable[str], ids: Sequence[str], place: str) -> None:
    """Raises: SettingsError, where `matched` found nothing."""
    if all(key is None for key in keys):
        theirs, ours = next(iter(known), ""), ids[0] if ids else ""
        raise SettingsError(
            f"{place}: tells of {theirs!r} and others, but of none of the images, e.g. {ours!r}; "
            "name images by sample id or file name"
        )


def _keys(sample_id: str) -> Iterator[str]:
    path = PurePosixPath(sample_id)
    yield from (sample_id, path.name, path.stem)


class _ClassesByName:
    """Finds the classes scored that a right label means.

    Both are names: a label is the class of exactly its name, and every class that is the same one of ImageNet-1k. A
    label of ImageNet-1k that was not scored means none. So `crane`, which is a bird there and a machine, is never
    taken for the other one.
    """

    def __init__(self, classes: tuple[str, ...], place: str) -> None:
        self._classes, self._place = classes, place
        self._published = class_finder(imagenet_classes())
        self._numbers: dict[str | int, set[int]] = {}
        for number, name in enumerate(classes):
            meant = self._published(name)
            for key in (name, *(meant if len(meant) == 1 else ())):
                self._numbers.setdefault(key, set()).add(number)
        self._cache: dict[str, frozenset[int]] = {}

    def numbers(self, names: frozenset[str], sample_id: str) -> frozenset[int]:
        """The numbers of the classes that the labels of a sample mean.

        Raises: SettingsError, where one of them means none or several.
        """
        for name in sorted(names):
            if name not in self._cache:
                self._cache[name] = self._find(name, sample_id)
        return frozenset().union(*(self._cache[name] for name in names))

    def _find(self, name: str, sample_id: str) -> frozenset[int]:
        meant = self._published(name)
        if len(meant) == 1:
            return frozenset(self._numbers.get(name, set()) | self._numbers.get(meant[0], set()))
        if name in self._numbers:
            return frozenset(self._numbers[name])
        place = f"{self._place}: {sample_id!r}: {name!r}"
        if meant:
            raise SettingsError(f"{place} is {' or '.join(imagenet_classes()[i] for i in meant)}; write which")
        known = [*self._classes, *(english_names(each)[0] for each in self._classes if is_wordnet_id(each))]
        raise SettingsError(f"{place} is no class that is scored, nor of ImageNet-1k{did_you_mean(name, known)}")


def multilabel_top1(predicted_N: NDArray[np.int64], right: Sequence[frozenset[int] | None]) -> Figure:
    """Share of the samples judged whose predicted class is a right one.

    Args:
        predicted_N: classes.
        right: for each of the N samples the right classes; None leaves it out.
    """
    judged = [said in numbers for said, numbers in zip(predicted_N.tolist(), right, strict=True) if numbers is not None]
    return fraction(sum(judged), len(judged)) if judged else figure(None, 0)


def predicted_classes(evaluation: Evaluation) -> NDArray[np.int64]:
    """The likeliest class of each sample, int64 [N]; of equal logits the lower class, as in top-1."""
    predicted_N: NDArray[np.int64] = evaluation.logits.argmax(axis=1)
    return predicted_N


def label_set_figures(evaluation: Evaluation, sets: LabelSets) -> dict[str, Figure]:
    """`real_top1` for ReaL labels, else `multilabel_top1`; its count is of the images judged.

    Raises: SettingsError, as `right_classes`.
    """
    right = right_classes(sets, evaluation.ids, evaluation.classes)
    return {sets.key: multilabel_top1(predicted_classes(evaluation), right.numbers)}


def label_set_details(evaluation: Evaluation, sets: LabelSets) -> dict[str, Any]:
    """What the figure left out and which images are wrong, ready for JSON.

    Returns: `left_out` with `empty`, `outside` and `absent`, and `errors`, each with `id`, `right` and `predicted`.

    Raises: SettingsError, as `right_classes`.
    """
    right = right_classes(sets, evaluation.ids, evaluation.classes)
    return {"left_out": right.left_out(), "errors": multilabel_errors(evaluation, right)}


def multilabel_errors(evaluation: Evaluation, right: RightClasses) -> list[dict[str, Any]]:
    """The samples that are judged and wrong: `id`, `right` and `predicted`, by name."""
    rows = zip(evaluation.ids, predicted_classes(evaluation).tolist(), right.names, right.numbers, strict=True)
    return [
        {"id": sample_id, "right": sorted(names or ()), "predicted": evaluation.classes[said]}
        for sample_id, said, names, numbers in rows
        if numbers is not None and said not in numbers
    ]

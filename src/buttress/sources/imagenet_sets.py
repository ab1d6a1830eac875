"""`imagenet-a:DIR`, `imagenet-r:DIR`, `imagenet-sketch:DIR`, `imagenet-v2:DIR`: test sets for models of ImageNet-1k.

Each is a tree of class folders as it was published; what is added are the classes that the field scores it over.
ImageNet-A: Hendrycks et al. 2021, arXiv 1907.07174. ImageNet-R: Hendrycks et al. 2021, arXiv 2006.16241.
ImageNet-Sketch: Wang et al. 2019, arXiv 1905.13549. ImageNet-V2: Recht et al. 2019, arXiv 1902.10811.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.imagenet_lists import wordnet_ids
from buttress.sources.source import NO_LABEL, Sample, Source, label_or_none
from buttress.terminal import note


@dataclass(frozen=True, kw_only=True, slots=True)
class _Published:
    """How a set was published.

    Args:
        title: its name.
        classes: the list of its classes.
        numbered: its folders are named by class numbers, 0 and up, and not by WordNet ids.
        whole: it has a list of its own, so that a folder without one of its classes is not this set.
    """

    title: str
    classes: str
    numbered: bool = False
    whole: bool = False

    def folders(self) -> tuple[str, ...]:
        """The names of its class folders, in the order of the classes."""
        classes = wordnet_ids(self.classes)
        return tuple(map(str, range(len(classes)))) if self.numbered else classes

    @property
    def named_by(self) -> str:
        """What its folders are named by, for errors."""
        return f"class numbers 0 to {len(self.folders()) - 1}" if self.numbered else "WordNet ids"


_SETS: Mapping[str, _Published] = {
    "imagenet-a": _Published(title="ImageNet-A", classes="imagenet_a", whole=True),
    "imagenet-r": _Published(title="ImageNet-R", classes="imagenet_r", whole=True),
    "imagenet-sketch": _Published(title="ImageNet-Sketch", classes="imagenet"),
    "imagenet-v2": _Published(title="ImageNet-V2", classes="imagenet", numbered=True),
}
IMAGENET_SETS = tuple(_SETS)


class ImageNetSet:
    """A folder of images whose classes are those of a published set, whatever part of them the folder has.

    Classes are WordNet ids, in the order of ImageNet-1k; ids are those of the folder.

    Args:
        scheme: one of `IMAGENET_SETS`.
        location: the folder that holds the class folders, as the user wrote it.
        open_folder: opens it: location, labels -> source.
        labels: false ignores all class folders.

    Raises: `SourceError` where the folder cannot be opened, or its sub-folders are not the classes of the set.
    """

    def __init__(self, scheme: str, location: str, open_folder: Callable[..., Source], *, labels: bool = True) -> None:
        self.uri = f"{scheme}:{location}"
        self._images = open_folder(location, labels=labels)
        self.ids = self._images.ids
        self.classes: tuple[str, ...] | None = None
        self.labels = np.full(len(self.ids), NO_LABEL, np.int32)
        self.closed_classes = labels
        if labels:
            published = _SETS[scheme]
            numbers = _class_numbers(published, self._images.classes or (), self.uri)
            self.classes = wordnet_ids(published.classes)
            self.labels = numbers[self._images.labels]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return replace(self._images[index], label=label_or_none(self.labels[index]))


def _class_numbers(published: _Published, found: Sequence[str], uri: str) -> NDArray[np.int32]:
    """The class of every folder found, int32 [F]."""
    number_of = {name: number for number, name in enumerate(published.folders())}
    lost = sorted(number_of.keys() - found, key=number_of.__getitem__)
    strange = [name for name in found if name not in number_of]
    if strange or not found or (lost and published.whole):
        raise SourceError(f"{uri}: {_what_was_found(published, found, lost, strange)}")
    if lost:
        note(f"{uri}: has images of {len(found):,} of the {len(number_of):,} classes; it is scored over all")
    return np.array([number_of[name] for name in found], np.int32)


def _what_was_found(published: _Published, found: Sequence[str], lost: list[str], strange: list[str]) -> str:
    wanted = f"the {len(published.folders()):,} class folders of {published.title}, named by {published.named_by}"
    if not found:
        return f"found no folders but images; give the folder that holds {wanted}"
    parts = [f"{len(strange)} are none of its classes (e.g. {strange[0]!r})"] if strange else []
    parts += [f"{len(lost)} of its classes are missing (e.g. {lost[0]!r})"] if lost and published.whole else []
    return f"found {len(found):,} folders: {' and '.join(parts)}; give the folder that holds {wanted}"

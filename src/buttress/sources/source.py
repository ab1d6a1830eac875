"""What a source of images is: the `Sample`, the `Source` protocol, and the error of an image that cannot be used."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError

NO_LABEL = -1


class UndecodableImage(SourceError):  # noqa: N818  (it names the image's state, as the house's text does)
    """One image that cannot be read or decoded. Whoever iterates over a source counts these and goes on."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a source.

    `id`: stable and unique in its source. `data`: the encoded bytes of an image file, or an array [H, W] or [H, W, C]
    (`decode` takes both). `label`: the index of its class, or None.
    """

    id: str
    data: bytes | NDArray[Any]
    label: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunks:
    """Which samples are read together.

    Args:
        of: the chunk's number for every sample [N].
        window: chunks, 1 and up, that a process keeps at hand.
    """

    of: NDArray[np.int32]
    window: int

    def chosen(self, indices: NDArray[np.int64]) -> Chunks:
        """Of the samples `indices` alone."""
        return Chunks(of=self.of[indices], window=self.window)


class Source(Protocol):
    """An indexable collection of images. It pickles small and holds no open file when it does.

    `source[i]` raises `UndecodableImage` where the bytes of image `i` cannot be had, `IndexError` past the end.

    A source may have an attribute `chunks` (`chunks_of` reads it): there, reading at random is costly, and neighbours
    in a chunk cost little once one of them was read.

    A source may have an attribute `closed_classes` (`has_closed_classes` reads it), true where its classes are all
    that may be answered: also a run that was trained on more of them is scored over these alone.
    """

    @property
    def uri(self) -> str:
        """Where the images come from, as the user wrote it."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names, the index is the label; None = unlabelled."""

    @property
    def ids(self) -> Sequence[str]:
        """The sample ids in order, unique, NFC."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """Label of every sample [N]; -1 = none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def chunks_of(source: Source) -> Chunks | None:
    """The source's chunks; none where samples cost the same in any order."""
    chunks: Chunks | None = getattr(source, "chunks", None)
    return chunks


def has_closed_classes(source: Source) -> bool:
    """Whether every model is to be scored over the source's classes alone, as the protocols of some test sets say."""
    return bool(getattr(source, "closed_classes", False))


def label_or_none(label: np.int32) -> int | None:
    """A label as a `Sample` holds it: -1 becomes None."""
    return None if label < 0 else int(label)


def nfc(text: str) -> str:
    """Unicode NFC, so that one name is one id on every file system."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def first_repeat(items: Sequence[str]) -> str | None:
    """The first item that stands twice, or None."""
    if len(set(items)) == len(items):
        return None
    seen: set[str] = set()
    # set.add returns None, so the second test only records the item
    return next(item for item in items if item in seen or seen.add(item))  # type: ignore[func-returns-value]


def checked_labels(labels: Any, count: int, classes: tuple[str, ...], place: str) -> NDArray[np.int32]:
    """Labels as int32 [N], every one -1 or the index of a class. Raises `SourceError` that names `place`."""
    array = np.asarray(labels)
    if array.shape != (count,) or not (np.issubdtype(array.dtype, np.integer) or count == 0):
        raise SourceError(f"{place}: labels must be {count} integers, found shape {array.shape} of {array.dtype}")
    wrong = array[(array < NO_LABEL) | (array >= len(classes))]
    if wrong.size:
        raise SourceError(f"{place}: label {wrong[0]} is outside the {len(classes)} classes (-1 = no label)")
    return array.astype(np.int32)


def numbered_classes(labels: Any, place: str, limit: int = 65_536) -> tuple[str, ...]:
    """Class names where only numbers are known: "0" up to the largest label."""
    array = np.asarray(labels)
    count = int(array.max(initial=NO_LABEL)) + 1
    if count > limit:
        raise SourceError(f"{place}: label {count - 1} does not look like a class number (at most {limit} classes)")
    return tuple(map(str, range(count)))

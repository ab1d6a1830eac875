"""Sources made of other things in memory: arrays, a choice of another source's samples, other labels for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from buttress.errors import SourceError
from buttress.sources.identity import content_hash, content_ids
from buttress.sources.source import (
    NO_LABEL,
    Sample,
    Source,
    checked_labels,
    chunks_of,
    first_repeat,
    has_closed_classes,
    label_or_none,
    nfc,
    numbered_classes,
)


class ArraySource:
    """Images held in one array.

    Args:
        images: uint8 (or uint16) [N, H, W] or [N, H, W, C] with C 1, 3 (RGB) or 4 (RGBA).
        labels: integers [N], -1 = none; None = unlabelled.
        ids: unique text per image. Default: hex content hashes, repeats of one image with `.1`, `.2`.
        classes: class names. Default: the numbers "0" up to the largest label.
        uri: what the source calls itself.

    Raises: `SourceError` where shapes, labels or ids do not fit.
    """

    def __init__(
        self,
        images: NDArray[Any],
        labels: ArrayLike | None = None,
        *,
        ids: Iterable[str] | None = None,
        classes: Iterable[str] | None = None,
        uri: str = "arrays",
    ) -> None:
        images = np.asarray(images)
        layout = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))
        if images.dtype not in (np.uint8, np.uint16) or not layout or 0 in images.shape:
            raise SourceError(f"{uri}: images must be uint8 [N,H,W] or [N,H,W,C], found {images.dtype}{images.shape}")
        self.uri = uri
        self.images = images
        self.ids = _unique_ids(ids, len(images), uri) if ids is not None else content_ids(map(content_hash, images))
        self.classes: tuple[str, ...] | None = None
        self.labels = np.full(len(images), NO_LABEL, np.int32)
        if labels is not None:
            self.classes = _unique_classes(classes, uri) if classes is not None else numbered_classes(labels, uri)
            self.labels = checked_labels(labels, len(images), self.classes, uri)
        elif classes is not None:
            raise SourceError(f"{uri}: classes without labels; give labels (-1 = none) or leave the classes out")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], self.images[index], label_or_none(self.labels[index]))


class Subset:
    """Some samples of another source, in the order of `indices` (integers, no repeats); ids and classes stay."""

    def __init__(self, source: Source, indices: ArrayLike) -> None:
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or not (np.issubdtype(chosen.dtype, np.integer) or chosen.size == 0):
            raise SourceError(f"{source.uri}: a subset takes a list of integers, found {chosen.dtype}{chosen.shape}")
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(source)):
            raise SourceError(f"{source.uri}: a subset index is outside 0..{len(source) - 1}")
        if len(np.unique(chosen)) != len(chosen):
            raise SourceError(f"{source.uri}: a subset names a sample twice; every id must be unique")
        self.source = source
        self.indices = chosen.astype(np.int64)
        self.uri = f"{source.uri} ({len(chosen)} of {len(source)})"
        self.classes = source.classes
        self.closed_classes = has_closed_classes(source)
        self.ids = tuple(source.ids[index] for index in self.indices)
        self.labels = source.labels[self.indices]
        chunks = chunks_of(source)
        self.chunks = None if chunks is None else chunks.chosen(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self.indices[index])]


class Relabelled:
    """The same images with other hard labels: integers [N], -1 = none; None takes labels and classes away."""

    def __init__(self, source: Source, labels: ArrayLike | None) -> None:
        self.source = source
        self.uri = source.uri
        self.ids = source.ids
        self.chunks = chunks_of(source)
        self.classes = source.classes if labels is not None else None
        self.closed_classes = labels is not None and has_closed_classes(source)
        given = np.full(len(source), NO_LABEL) if labels is None else labels
        self.labels = checked_labels(given, len(source), self.classes or (), source.uri)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return replace(self.source[index], label=label_or_none(self.labels[index]))


def _unique_ids(ids: Iterable[str], count: int, place: str) -> tuple[str, ...]:
    unique = tuple(map(nfc, ids))
    if len(unique) != count:
        raise SourceError(f"{place}: {len(unique)} ids for {count} images")
    if (repeat := first_repeat(unique)) is not None:
        raise SourceError(f"{place}: the id {repeat!r} stands twice")
    return unique


def _unique_classes(classes: Iterable[str], place: str) -> tuple[str, ...]:
    names: Sequence[str] = tuple(map(nfc, classes))
    if (repeat := first_repeat(names)) is not None:
        raise SourceError(f"{place}: two classes are named {repeat!r}")
    return tuple(names)

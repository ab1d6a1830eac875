"""The sets of the demo: what a student learns from, what it is scored on, what a teacher learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buttress.errors import SourceError
from buttress.sources.digits import open_digits
from buttress.sources.opening import open_source
from buttress.sources.source import Source
from buttress.sources.splits import split, with_wrong_labels

USER_IMAGES, TEST_IMAGES = 300, 600  # of the 1,797 digits; the teacher learns from the others
WRONG_SHARE, WRONG_SEED = 0.2, 0
HELD_OUT = 0.2  # of images that come without a test set


@dataclass(frozen=True, kw_only=True)
class ComparisonSets:
    """Images that share nothing but `train` and `clean`.

    Args:
        train: what the student learns from, under the labels it is given.
        test: what it is scored on.
        clean: `train` without the planted wrong labels, where they are known.
        teacher: what a teacher of our own learns from, where there is one.
    """

    train: Source
    test: Source
    clean: Source | None = None
    teacher: Source | None = None

    @property
    def truths(self) -> NDArray[np.int32]:
        """The right labels of `train`, as far as they are known."""
        return (self.train if self.clean is None else self.clean).labels

    @property
    def planted(self) -> int:
        """How many labels of `train` are known to be wrong."""
        return int((self.train.labels != self.truths).sum())


def digit_sets() -> ComparisonSets:
    """Handwritten digits: a user's set with a fifth of its labels wrong, a test set, and the teacher's own."""
    digits = open_digits()
    teachers, user, test = split(digits, (len(digits) - USER_IMAGES - TEST_IMAGES, USER_IMAGES, TEST_IMAGES))
    return ComparisonSets(
        train=with_wrong_labels(user, WRONG_SHARE, WRONG_SEED), test=test, clean=user, teacher=teachers
    )


def own_sets(data: str, val: str | None) -> ComparisonSets:
    """A user's images, with a fifth of them held back for the test where no test set is named.

    Raises: SourceError, where there is nothing to compare: no classes or only one, other ones in `val`, no test images.
    """
    images = open_source(data)
    _check_classes(images)
    if val is not None:
        sets = ComparisonSets(train=images, test=open_source(val))
    else:
        held_out = round(HELD_OUT * len(images))
        train, test = split(images, (len(images) - held_out, held_out))
        sets = ComparisonSets(train=train, test=test)
    _check_test(sets, val)
    return sets


def _check_classes(images: Source) -> None:
    if images.classes is None:
        raise SourceError(f"{images.uri}: has no classes to compare by; put the images in class sub-folders")
    if len(images.classes) < 2:
        raise SourceError(f"{images.uri}: has one class, {images.classes[0]}; there is nothing to tell apart")


def _check_test(sets: ComparisonSets, val: str | None) -> None:
    train, test = sets.train, sets.test
    if test.classes != train.classes:
        ours, theirs = (", ".join((source.classes or ("none",))[:5]) for source in (train, test))
        raise SourceError(f"{test.uri}: its classes ({theirs}) are not those of the training images ({ours})")
    for source, what in ((train, "to train on"), (test, "to score on")):
        if not (np.asarray(source.labels) >= 0).any():
            count = len(train) + len(test)
            way_out = "" if val else f" once a fifth of {count} images is held back; name more by --val"
            raise SourceError(f"{source.uri}: has no labelled images {what}{way_out}")

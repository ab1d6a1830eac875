"""The sets of the demo: what a student learns from, what it is scored on, what a teacher learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """A user's images, with a fifth of them held back for the test where no test set is named."""
    images = open_source(data)
    if val is not None:
        return ComparisonSets(train=images, test=open_source(val))
    held_out = round(HELD_OUT * len(images))
    train, test = split(images, (len(images) - held_out, held_out))
    return ComparisonSets(train=train, test=test)

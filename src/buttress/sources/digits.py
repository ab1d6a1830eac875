"""`digits`: 1,797 real handwritten digits of 8x8 grey pixels (UCI Optical Recognition of Handwritten Digits)."""

from __future__ import annotations

import numpy as np

from buttress.errors import SourceError
from buttress.sources.arrays import ArraySource


def open_digits(*, labels: bool = True) -> ArraySource:
    """scikit-learn's digits with 0..16 scaled to 0..255: images uint8 [1797, 8, 8], classes "0".."9".

    Ids are content hashes. Raises: `SourceError` where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as failure:
        raise SourceError("digits needs scikit-learn: pip install buttress[demo]") from failure
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    if not labels:
        return ArraySource(images, uri="digits")
    return ArraySource(images, digits.target, classes=map(str, range(10)), uri="digits")

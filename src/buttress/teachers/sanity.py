"""Does the teacher know these images at all? A wrong mean/std or class map is the commonest mistake, and shows here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def agreement(probabilities_BC: NDArray[np.floating[Any]], labels_B: NDArray[np.integer[Any]]) -> tuple[int, int]:
    """Count (images whose label is the teacher's top-1, images that have a label); -1 is no label."""
    labelled = labels_B >= 0
    agree = probabilities_BC.argmax(axis=1) == labels_B
    return int((agree & labelled).sum()), int(labelled.sum())


def near_chance(agree: int, labelled: int, classes: int) -> bool:
    """Whether the agreement is not above twice chance (few classes: chance + 0.1) at 95 % (normal approximation)."""
    level = 1 / classes + min(1 / classes, 0.1)
    return agree <= labelled * level + 1.645 * math.sqrt(labelled * level * (1 - level))


def sanity_line(agree: int, labelled: int, classes: int) -> str:
    """One line for the terminal before labelling starts; near chance it says what to look at."""
    if labelled == 0:
        return "none of the images looked at has a label, so the teacher's agreement with your labels is unknown"
    line = f"teacher agrees with your labels on {agree:,} of {labelled:,} images"
    if classes < 2 or not near_chance(agree, labelled, classes):
        return line
    return (
        f"{line}; that is near chance ({1 / classes:.1%} for {classes} classes): "
        "check the teacher's mean/std, its class map, and the labels"
    )

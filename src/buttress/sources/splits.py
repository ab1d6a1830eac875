"""Cutting a source into sets that share nothing, and planting wrong labels: for fair comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from buttress.errors import SourceError
from buttress.sources.arrays import Relabelled, Subset
from buttress.sources.identity import id_hashes
from buttress.sources.source import Source


def split(source: Source, counts: Sequence[int]) -> list[Subset]:
    """Disjoint sets of the given sizes, drawn by the hash of the sample id: the same on every machine.

    Args:
        source: what to cut.
        counts: samples in each set; together at most those of the source.

    Raises: SourceError where there are too few samples.
    """
    if sum(counts) > len(source):
        raise SourceError(f"{source.uri}: {len(source)} samples, too few for sets of {', '.join(map(str, counts))}")
    order = np.argsort(id_hashes(source.ids), kind="stable")
    edges = np.cumsum([0, *counts])
    return [Subset(source, np.sort(order[low:high])) for low, high in pairwise(edges)]


def with_wrong_labels(source: Source, share: float, seed: int) -> Relabelled:
    """The same images with a share of the labels replaced by another class, drawn evenly.

    Args:
        source: labelled images of at least two classes.
        share: of the labels, 0..1; rounded to whole samples.
        seed: which labels, and which classes.
    """
    assert source.classes is not None
    assert len(source.classes) > 1
    generator = np.random.default_rng(seed)
    labels = np.array(source.labels, copy=True)
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    labels[chosen] = (labels[chosen] + generator.integers(1, len(source.classes), len(chosen))) % len(source.classes)
    return Relabelled(source, labels)

"""Arrays, subsets and other labels: they compose, pickle, and refuse what does not fit."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from tests.sources.every_source import samples

from buttress.errors import SourceError
from buttress.sources import ArraySource, Relabelled, Source, Subset, open_source


def source() -> ArraySource:
    images = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    return ArraySource(images, [0, 1, 2, 1, -1], ids="abcde", classes=["x", "y", "z"])


def same(left: Source, right: Source) -> bool:
    pairs = zip(samples(left), samples(right), strict=True)
    equal = all(a.id == b.id and a.label == b.label and np.array_equal(a.data, b.data) for a, b in pairs)
    labels = np.array_equal(left.labels, right.labels) and left.labels.dtype == right.labels.dtype
    return equal and labels and (left.uri, left.ids, left.classes) == (right.uri, right.ids, right.classes)


def test_samples_labels_and_end() -> None:
    arrays = source()
    assert [(sample.id, sample.label) for sample in samples(arrays)] == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
        ("d", 1),
        ("e", None),
    ]
    assert arrays.labels.dtype == np.int32
    with pytest.raises(IndexError):
        arrays[5]


def test_default_ids_are_content_and_default_classes_numbers() -> None:
    images = np.zeros((3, 8, 8), np.uint8)
    images[1] = 9
    arrays = ArraySource(images, [0, 2, 0])
    assert arrays.ids[2] == arrays.ids[0] + ".1"
    assert len(set(arrays.ids)) == 3
    assert arrays.classes == ("0", "1", "2")
    assert ArraySource(images[::-1]).ids[1] == arrays.ids[1]


def test_unlabelled() -> None:
    arrays = ArraySource(np.zeros((2, 8, 8), np.uint8))
    assert arrays.classes is None
    assert arrays[0].label is None
    assert arrays.labels.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"labels": [0, 1]}, "5 integers"),
        ({"labels": [0.5] * 5}, "5 integers"),
        ({"labels": [0, 1, 2, 3, 3], "classes": ["x", "y", "z"]}, "label 3 is outside the 3 classes"),
        ({"labels": [0, 0, 0, 0, -2], "classes": ["x"]}, "label -2"),
        ({"labels": [0] * 5, "classes": ["x", "x"]}, "two classes are named 'x'"),
        ({"classes": ["x"]}, "classes without labels"),
        ({"ids": "abcd"}, "4 ids for 5 images"),
        ({"ids": "abcda"}, "'a' stands twice"),
        ({"ids": ["e\u0301", "\u00e9", "a", "b", "c"]}, "stands twice"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(SourceError, match=match):
        ArraySource(np.zeros((5, 8, 8), np.uint8), **options)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3)),
        np.zeros((2, 8, 8, 2), np.uint8),
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 8, 8), np.uint8),
    ],
)
def test_images_of_other_layouts_are_refused(images: np.ndarray) -> None:
    with pytest.raises(SourceError, match="images must be"):
        ArraySource(images)


def test_subset_and_relabelled_compose_in_either_order() -> None:
    planted = Relabelled(source(), [2, 2, 2, -1, 0])
    chosen = Subset(planted, [4, 1])
    assert [(sample.id, sample.label) for sample in samples(chosen)] == [("e", 0), ("b", 2)]
    assert chosen.labels.tolist() == [0, 2]
    assert chosen.classes == ("x", "y", "z")
    again = Relabelled(Subset(source(), [4, 1]), [0, 2])
    assert [(sample.id, sample.label) for sample in samples(again)] == [("e", 0), ("b", 2)]
    assert np.array_equal(again[0].data, source()[4].data)
    deeper = Subset(Subset(source(), [4, 3, 2]), np.array([2, 0]))
    assert deeper.ids == ("c", "e")


@pytest.mark.parametrize("indices", [[5], [-1], [0, 0], [0.5], [[0]], [True, False, True, False, True]])
def test_a_subset_takes_valid_unique_indices_only(indices: list[Any]) -> None:
    with pytest.raises(SourceError, match="subset"):
        Subset(source(), indices)


def test_relabelled_checks_its_labels() -> None:
    with pytest.raises(SourceError, match="label 3"):
        Relabelled(source(), [3, 0, 0, 0, 0])
    with pytest.raises(SourceError, match="5 integers"):
        Relabelled(source(), [0])


def test_all_pickle() -> None:
    for one in (source(), Subset(source(), [3, 1]), Relabelled(Subset(source(), [3, 1]), [0, -1])):
        assert same(pickle.loads(pickle.dumps(one)), one)


def test_open_source_takes_a_source_and_its_labels_away() -> None:
    arrays = source()
    assert open_source(arrays) is arrays
    bare = open_source(arrays, labels=False)
    assert bare.classes is None
    assert bare[0].label is None
    assert bare.ids == arrays.ids

"""Sets that share nothing, and planted wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.errors import SourceError
from buttress.sources import ArraySource, Subset
from buttress.sources.splits import split, with_wrong_labels


def numbered(count: int) -> ArraySource:
    """`count` images with their number as id and number mod 4 as label."""
    return ArraySource(
        np.zeros((count, 2, 2), np.uint8), np.arange(count) % 4, ids=[f"{i}" for i in range(count)], classes="abcd"
    )


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(0, 5))
def test_sets_are_disjoint_and_of_the_asked_sizes(counts, spare):
    sets = split(numbered(sum(counts) + spare + 1), counts)
    ids = [sample_id for each in sets for sample_id in each.ids]
    assert [len(each) for each in sets] == counts
    assert len(set(ids)) == sum(counts)


def test_the_choice_follows_the_id_and_not_the_order():
    source = numbered(40)
    turned = Subset(source, np.arange(40)[::-1])
    for one, other in zip(split(source, (10, 20)), split(turned, (10, 20)), strict=True):
        assert set(one.ids) == set(other.ids)


def test_too_few_samples_are_an_error():
    with pytest.raises(SourceError, match="5 samples, too few for sets of 3, 3"):
        split(numbered(5), (3, 3))


@given(st.floats(0, 1), st.integers(0, 3))
def test_exactly_the_share_of_the_labels_is_wrong(share, seed):
    source = numbered(40)
    noisy = with_wrong_labels(source, share, seed)
    assert int((noisy.labels != source.labels).sum()) == round(share * 40)
    assert set(noisy.labels) <= set(range(4))
    np.testing.assert_array_equal(noisy.labels, with_wrong_labels(source, share, seed).labels)
    assert noisy.ids == source.ids

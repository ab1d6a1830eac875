import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.errors import PolicyError
from buttress.views.keys import MAX_SEED, WordSource, words

from .philox import philox_block, reference_words

UINT64 = st.integers(0, 2**64 - 1)
FULL = 2**64 - 1


# Known answers of Random123's own distribution (kat_vectors, philox4x64 with 10 rounds).
@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
        ),
        (
            (FULL, FULL, FULL, FULL),
            (FULL, FULL),
            (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
        ),
    ],
)
def test_reference_gives_the_published_vectors(counter, key, block):
    assert philox_block(counter, key) == block


@given(seed=st.integers(0, MAX_SEED), view=UINT64, id_hash=UINT64, slot=st.integers(0, 4095), count=st.integers(1, 13))
def test_words_are_philox_from_block_one(seed, view, id_hash, slot, count):
    assert words(seed, view, id_hash, slot, count).tolist() == reference_words(seed, view, id_hash, slot, count)


def test_words_is_a_uint64_array():
    drawn = words(1, 2, 3, 256, 5)
    assert drawn.dtype == np.uint64
    assert drawn.shape == (5,)


def test_words_do_not_depend_on_what_was_drawn_before():
    source = WordSource(5)
    first = source.words(1, 2, 256, 3)
    source.words(9, 9, 512, 7)
    assert source.words(1, 2, 256, 3) == first
    assert source.words(1, 2, 256, 7)[:3] == first


def test_every_counter_word_and_the_seed_matter():
    base = (1, 2, 3, 256)
    drawn = {
        tuple(words(*key, 2).tolist()) for key in (base, (2, 2, 3, 256), (1, 3, 3, 256), (1, 2, 4, 256), (1, 2, 3, 257))
    }
    assert len(drawn) == 5


def test_a_pickled_source_draws_the_same():
    source = WordSource(MAX_SEED)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.words(1, 2, 3, 4) == source.words(1, 2, 3, 4)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(PolicyError, match="out of range"):
        WordSource(seed)

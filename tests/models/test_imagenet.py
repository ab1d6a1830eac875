import json

import pytest

from buttress.models.imagenet import english_names, imagenet_classes, is_wordnet_id, normalised


def test_the_table_is_the_published_one(real_data):
    published = json.loads((real_data / "imagenet1k_classes.json").read_text())
    assert imagenet_classes() == tuple(row["wnid"] for row in published)
    for row in published:
        assert normalised(row["name"]) in [normalised(name) for name in english_names(row["wnid"])]


def test_order_and_names():
    classes = imagenet_classes()
    assert len(set(classes)) == 1000
    assert list(classes) == sorted(classes)
    assert english_names("n01440764") == ("tench", "Tinca tinca")


def test_what_is_a_wordnet_id():
    assert is_wordnet_id("n01440764")
    assert not is_wordnet_id("n00000000")
    with pytest.raises(KeyError):
        english_names("tench")


def test_normalised_ignores_case_and_separators():
    assert normalised("Great_White-Shark ") == "great white shark"

"""Several right labels: what counts, what is left out, and one line for every file that cannot be used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.metrics.judged import answered

from buttress.errors import SettingsError
from buttress.metrics.evaluate import figures_of
from buttress.metrics.intervals import fraction
from buttress.metrics.label_sets import (
    LabelSets,
    label_set_details,
    label_set_figures,
    multilabel_top1,
    read_label_sets,
    right_classes,
)
from buttress.models.imagenet import imagenet_classes
from buttress.sources import open_source

PETS = ("cat", "dog", "owl")


def sets_of(**names):
    return LabelSets(
        place="sets.json", names={image.replace("__", "/"): frozenset(each) for image, each in names.items()}
    )


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_an_image_is_right_where_top1_is_one_of_its_labels():
    evaluation = answered(PETS, {"a": "cat", "b": "cat", "c": "owl", "d": "dog"})
    sets = sets_of(a=["dog", "cat"], b=["dog", "owl"], c=["owl"], d=["dog"])
    figure = label_set_figures(evaluation, sets)["multilabel_top1"]
    assert figure == fraction(3, 4)
    assert label_set_details(evaluation, sets) == {
        "left_out": {"empty": 0, "outside": 0, "absent": 0},
        "errors": [{"id": "b", "right": ["dog", "owl"], "predicted": "cat"}],
    }


def test_with_one_label_each_it_is_top1():
    rng = np.random.default_rng(0)
    said, own = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    assert multilabel_top1(said, [frozenset([label]) for label in own])["value"] == (said == own).mean()


def test_what_cannot_be_judged_is_left_out_and_counted():
    evaluation = answered(PETS, {"a": "cat", "b": "cat", "c": "cat", "d": "cat", "e": "cat"})
    sets = sets_of(a=["cat"], b=[], c=["n01440764", "goldfish"], d=["n01440764", "dog"])
    assert label_set_figures(evaluation, sets)["multilabel_top1"]["count"] == 2
    details = label_set_details(evaluation, sets)
    assert details["left_out"] == {"empty": 1, "outside": 1, "absent": 1}
    assert [error["id"] for error in details["errors"]] == ["d"]
    assert details["errors"][0]["right"] == ["dog", "n01440764"]


def test_nothing_can_be_judged():
    figure = label_set_figures(answered(PETS, {"a": "cat"}), sets_of(a=[]))["multilabel_top1"]
    assert figure == {"value": None, "count": 0, "low": None, "high": None}


@pytest.mark.parametrize("label", ["n01443537", "goldfish", "Carassius_auratus"])
@pytest.mark.parametrize("scored", ["n01443537", "goldfish", "goldfish, Carassius auratus"])
def test_a_class_of_imagenet_by_any_of_its_names(label, scored):
    right = right_classes(sets_of(a=[label]), ["a"], ("other", scored))
    assert right.numbers == (frozenset([1]),)


def test_a_class_is_never_taken_for_another_of_the_same_english_name():
    bird, machine = "n02012849", "n03126707"
    right = right_classes(sets_of(a=[machine], b=[bird]), ["a", "b"], (bird, "n01440764"))
    assert right.numbers == (None, frozenset([0]))
    with pytest.raises(SettingsError, match=f"'crane' is {bird} or {machine}; write which"):
        right_classes(sets_of(a=["crane"]), ["a"], (bird,))
    assert right_classes(sets_of(a=["crane"]), ["a"], ("heron", "crane")).numbers == (frozenset([1]),)


def test_images_by_id_by_file_name_and_without_its_ending():
    ids = ["cat/1.jpg", "cat/2.jpg", "dog/3.jpg"]
    right = right_classes(sets_of(**{"cat__1.jpg": ["cat"], "2.jpg": ["dog"], "3": ["owl"]}), ids, PETS)
    assert right.numbers == (frozenset([0]), frozenset([1]), frozenset([2]))
    right = right_classes(sets_of(**{"cat__1.jpg": ["cat"], "1.jpg": ["dog"]}), ["cat/1.jpg"], PETS)
    assert right.numbers == (frozenset([0]),)


def test_a_file_name_of_two_images():
    with pytest.raises(SettingsError, match=r"'1.jpg' may be 'cat/1.jpg' or 'dog/1.jpg'; name it by its sample id"):
        right_classes(sets_of(**{"1.jpg": ["cat"]}), ["cat/1.jpg", "dog/1.jpg"], PETS)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ({"zzz.jpg": ["cat"]}, "sets.json: tells of 'zzz.jpg' and others, but of none of the images, e.g. 'a'"),
        ({"a": ["dgo"]}, r"sets.json: 'a': 'dgo' is no class that is scored, nor of ImageNet-1k; did you mean dog"),
        ({"a": ["Cat "]}, "did you mean cat"),
        ({"a": ["n00000001"]}, "'n00000001' is no class that is scored, nor of ImageNet-1k"),
    ],
)
def test_labels_and_images_that_are_not_there(names, line):
    with pytest.raises(SettingsError, match=line) as caught:
        right_classes(sets_of(**names), ["a"], PETS)
    assert "\n" not in str(caught.value)


def test_the_hint_knows_english_names_of_the_classes_scored():
    with pytest.raises(SettingsError, match="did you mean goldfish"):
        right_classes(sets_of(a=["golfish"]), ["a"], ("n01443537",))


def test_a_file_of_right_labels(tmp_path):
    sets = read_label_sets(written(tmp_path / "s.json", {"a": ["cat", "dog"], "b": []}))
    assert dict(sets.names) == {"a": {"cat", "dog"}, "b": set()}
    assert sets.key == "multilabel_top1"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"a": ["cat"', "not valid JSON"),
        ({}, "right labels are a JSON object"),
        ([["cat"]], "the ReaL labels are asked for as real"),
        ({"a": "cat"}, r"'a': right labels are a list of class names, e.g. \[\"n01440764\"\]"),
        ({"a": [3]}, "'a': right labels are a list of class names"),
        ({"a": {"correct": ["cat"]}}, "'a': right labels are a list of class names"),
        ('{"a": [], "a": []}', "a key stands twice"),
    ],
)
def test_files_that_say_something_else(tmp_path, content, line):
    with pytest.raises(SettingsError, match=line) as caught:
        read_label_sets(written(tmp_path / "s.json", content))
    assert "\n" not in str(caught.value)
    assert "s.json" in str(caught.value)


def test_an_absent_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read_label_sets(tmp_path / "absent.json")


def test_the_real_labels_are_as_published():
    real = read_label_sets("real")
    assert len(real.names) == 50_000
    assert sum(not names for names in real.names.values()) == 3163
    assert real.names["ILSVRC2012_val_00000002"] == {imagenet_classes()[970], imagenet_classes()[795]}
    assert set().union(*real.names.values()) <= set(imagenet_classes())


def test_real_images_are_known_by_the_number_in_their_name():
    ids = ["n1/ILSVRC2012_val_00000002.JPEG", "n2/ILSVRC2012_val_00000002.png", "ILSVRC2012_val_00050001.JPEG"]
    right = right_classes(read_label_sets("real"), ids, imagenet_classes())
    assert right.numbers == (frozenset([970, 795]), frozenset([970, 795]), None)
    assert right.left_out() == {"empty": 0, "outside": 0, "absent": 1}


def test_real_labels_and_the_folders_of_real_photos_mostly_agree(real_data):
    source = open_source(f"folder:{real_data}/photos/imagenette224/val")
    said = dict(zip(source.ids, (name.split("/")[0] for name in source.ids), strict=True))
    over_all = answered(imagenet_classes(), said)  # as a model would that says the folder
    figure = label_set_figures(over_all, read_label_sets("real"))["real_top1"]
    assert figure == fraction(112, 128)
    left_out = label_set_details(over_all, read_label_sets("real"))["left_out"]
    assert left_out == {"empty": 6, "outside": 0, "absent": 366}
    assert source.classes is not None
    over_ten = answered(source.classes, said)  # what is none of the ten cannot be said
    details = label_set_details(over_ten, read_label_sets("real"))
    assert details["left_out"] == {"empty": 6, "outside": 16, "absent": 366}
    assert details["errors"] == []


def test_of_equal_logits_the_lower_class_is_the_answer_as_in_top1():
    evaluation = answered(PETS, {"a": "cat"})
    evaluation.logits[:] = 0
    assert label_set_figures(evaluation, sets_of(a=["cat"]))["multilabel_top1"]["value"] == 1
    assert label_set_figures(evaluation, sets_of(a=["dog", "owl"]))["multilabel_top1"]["value"] == 0
    assert figures_of(evaluation.logits, evaluation.labels)["top1"]["value"] == 1

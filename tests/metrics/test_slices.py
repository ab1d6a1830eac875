"""Named parts of the images: their figures, their errors, and one line for every file that cannot be used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.metrics.judged import answered

from buttress.errors import SettingsError
from buttress.files import json_bytes
from buttress.metrics.label_sets import LabelSets
from buttress.metrics.slices import Slice, check_slices, read_slices, slice_details

PETS = ("cat", "dog", "owl")
SAID = {"x/1.jpg": "cat", "x/2.jpg": "cat", "x/3.jpg": "owl", "y/4.jpg": "dog"}
TRUTH = {"x/2.jpg": "dog", "x/3.jpg": "dog"}


def told(slices, sets=None):
    found = slice_details(answered(PETS, SAID, TRUTH), slices, sets)
    json_bytes(found)  # ready for JSON
    return found


def part(name="part", images=(), right=None):
    named = None if right is None else {image: frozenset(each) for image, each in right.items()}
    return Slice(name=name, place=f"s.json: slice {name!r}", images=tuple(right or images), right=named)


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_top1_and_errors_of_each_slice():
    first, second = told([part("first", ["x/1.jpg", "2.jpg", "gone.jpg"]), part("second", ["y/4.jpg"])])
    assert (first["name"], first["images"], first["absent"]) == ("first", 2, 1)
    assert (first["top1"]["value"], first["top1"]["count"]) == (0.5, 2)
    assert first["errors"] == [{"id": "x/2.jpg", "right": ["dog"], "predicted": "cat"}]
    assert "multilabel_top1" not in first
    assert (second["top1"]["value"], second["errors"]) == (1, [])


def test_right_labels_of_its_own_decide():
    right = {"1.jpg": ["dog"], "2.jpg": ["cat", "dog"], "3.jpg": [], "4.jpg": ["n01440764"]}
    [found] = told([part(right=right)])
    assert found["top1"]["value"] == 0.5
    assert (found["multilabel_top1"]["value"], found["multilabel_top1"]["count"]) == (0.5, 2)
    assert found["left_out"] == {"empty": 1, "outside": 1, "absent": 0}
    assert found["errors"] == [{"id": "x/1.jpg", "right": ["dog"], "predicted": "cat"}]


def test_label_sets_serve_slices_without_right_labels_of_their_own():
    sets = LabelSets(place="l.json", names={"2.jpg": frozenset(["cat"]), "1.jpg": frozenset(["owl"])})
    plain, own, untold = told(
        [part("plain", ["1.jpg", "2.jpg", "3.jpg"]), part("own", right={"1.jpg": ["cat"]}), part("u", ["4.jpg"])], sets
    )
    assert (plain["multilabel_top1"]["value"], plain["multilabel_top1"]["count"]) == (0.5, 2)
    assert plain["left_out"] == {"empty": 0, "outside": 0, "absent": 1}
    assert [error["id"] for error in plain["errors"]] == ["x/1.jpg"]
    assert own["multilabel_top1"]["value"] == 1
    assert untold["multilabel_top1"] == {"value": None, "count": 0, "low": None, "high": None}


def test_a_slice_of_other_images_has_no_figure_but_all_of_them_are_an_error():
    first, other = told([part("first", ["1.jpg"]), part("other", ["z.jpg"], None)])
    assert first["images"] == 1
    assert (other["images"], other["absent"], other["top1"]["value"], other["errors"]) == (0, 1, None, [])
    with pytest.raises(SettingsError, match=r"s.json: slice 'other': tells of 'z.jpg' and others, but of none"):
        told([part("other", ["z.jpg"])])


def test_a_label_that_is_no_class():
    with pytest.raises(SettingsError, match=r"s.json: slice 'part': 'x/1.jpg': 'dgo' is no class .* did you mean dog"):
        told([part(right={"1.jpg": ["dgo"]})])


def test_a_file_name_of_two_images():
    evaluation = answered(PETS, {"x/1.jpg": "cat", "y/1.jpg": "dog"})
    with pytest.raises(SettingsError, match=r"'1.jpg' may be 'x/1.jpg' or 'y/1.jpg'"):
        slice_details(evaluation, [part(images=["1.jpg"])])


def test_a_file_of_slices(tmp_path):
    plain, own = read_slices(written(tmp_path / "s.json", {"plain": ["b", "a"], "own": {"a": ["cat"]}}))
    assert (plain.name, plain.images, plain.right) == ("plain", ("b", "a"), None)
    assert (own.name, own.images, own.right) == ("own", ("a",), {"a": frozenset(["cat"])})


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"a": ["1.jpg"', "not valid JSON"),
        ({}, "slices are a JSON object"),
        (["1.jpg"], "slices are a JSON object"),
        ({"a": []}, "slice 'a': is a list of images, or an object"),
        ({"a": {}}, "slice 'a': is a list of images, or an object"),
        ({"a": "1.jpg"}, "slice 'a': is a list of images"),
        ({"a": [1]}, "slice 'a': is a list of images"),
        ({"a": ["1.jpg", "1.jpg"]}, "slice 'a': '1.jpg' stands twice"),
        ({"a": {"1.jpg": "cat"}}, "slice 'a': '1.jpg': right labels are a list of class names"),
    ],
)
def test_files_that_say_something_else(tmp_path, content, line):
    with pytest.raises(SettingsError, match=line) as caught:
        read_slices(written(tmp_path / "s.json", content))
    assert "\n" not in str(caught.value)


def test_imagenet_m_as_it_is_published(tmp_path):
    """The layout of human_accuracy_v3.0.0.json, and the lines of docs/evaluate.md that make a slice of it."""
    published: dict[str, Any] = {
        "initial_annots": {"1.jpg": {"correct": ["dog"], "unclear": ["cat"]}, "2.jpg": {"correct": ["dog"]}},
        "problematic_images": {},
        "imagenet_m": ["1.jpg"],
    }
    with pytest.raises(SettingsError, match=r"slice 'initial_annots': '1.jpg': right labels are a list"):
        read_slices(written(tmp_path / "h.json", published))
    right = {
        name: each.get("correct", []) + each.get("unclear", []) for name, each in published["initial_annots"].items()
    }
    slices = {"imagenet-m": {name: right[name] for name in published["imagenet_m"]}}
    [found] = told(read_slices(written(tmp_path / "s.json", slices)))
    assert (found["name"], found["multilabel_top1"]["value"], found["top1"]["value"]) == ("imagenet-m", 1, 1)


def test_errors_of_slices_are_found_without_predictions():
    ids = tuple(SAID)
    check_slices([part(images=["1.jpg"])], ids, PETS)
    with pytest.raises(SettingsError, match="none of the images"):
        check_slices([part(images=["gone.jpg"])], ids, PETS)
    with pytest.raises(SettingsError, match="doog"):
        check_slices([part(right={"1.jpg": ["doog"]})], ids, PETS)

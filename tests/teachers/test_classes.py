from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from buttress.errors import ModelError
from buttress.models.imagenet import imagenet_classes
from buttress.teachers.classes import ClassMap, choose_classes, read_class_map

IMAGENET = imagenet_classes()


def choose(teacher_classes=IMAGENET, *, source=None, mode="source", file=None):
    return choose_classes(teacher_classes, mode=mode, source_classes=source, class_map=file, teacher="timm:t")


def yaml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "map.yaml"
    file.write_text(text)
    return file


def test_wordnet_ids_and_english_names_find_imagenets_classes():
    found = choose(source=("n01440764", "Great_White_Shark", "garbage truck, dustcart", "Tinca tinca fish, goldfish"))
    assert found.groups == ((0,), (2,), (569,), (1,))


def test_english_teacher_classes_are_found_by_wordnet_id():
    assert choose(("goldfish", "tench"), source=("n01440764", "n01443537")).groups == ((1,), (0,))


def test_an_exact_name_comes_before_any_likeness():
    assert choose(("Cat", "cat", "c a t"), source=("cat", "Cat")).groups == ((1,), (0,))


def test_the_usual_name_comes_before_a_synonym():
    # "panther" is a synonym of two classes and the usual name of none; "gong" the usual name of one and a synonym too.
    assert choose(source=("gong",)).groups == ((IMAGENET.index("n03447721"),),)
    with pytest.raises(ModelError, match=r"'panther' \(n02125311 cougar or n02128925 jaguar\)"):
        choose(source=("panther",))


def test_a_name_of_two_classes_is_an_error_that_names_both():
    with pytest.raises(ModelError, match=r"'crane' \(n02012849 crane or n03126707 crane\)"):
        choose(source=("crane",))


def test_a_class_without_a_match_is_named_with_the_nearest_and_the_way_out():
    with pytest.raises(ModelError, match=r"'tenchh' \(did you mean tench.*--class-map FILE") as failure:
        choose(source=("tenchh", "n01443537"))
    assert "\n" not in str(failure.value)


def test_many_lost_classes_are_cut_short():
    with pytest.raises(ModelError, match="and 15 more"):
        choose(("x",), source=tuple(f"unknown {number}" for number in range(20)))


def test_two_classes_on_one_are_an_error():
    with pytest.raises(ModelError, match="'n01440764' and 'tench'"):
        choose(source=("n01440764", "tench"))


def test_the_same_classes_need_no_map():
    assert choose(("a", "b"), source=("a", "b")) == ClassMap(classes=("a", "b"))
    assert choose(("b", "a"), source=("a", "b")).groups == ((1,), (0,))


def test_a_teacher_that_names_nothing_gives_the_sources_classes_in_order():
    assert choose(None, source=("a", "b")) == ClassMap(classes=("a", "b"))


def test_the_teachers_own_classes_are_kept_on_demand_and_where_the_source_has_none(capsys):
    assert choose(("x", "y"), source=("a",), mode="teacher") == ClassMap(classes=("x", "y"))
    assert capsys.readouterr().err == ""
    assert choose(("x", "y")) == ClassMap(classes=("x", "y"))
    assert "its own are kept" in capsys.readouterr().err


def test_a_written_map_by_name_number_and_list(tmp_path):
    file = yaml(tmp_path, "fish: [tench, n01443537]\nshark: 2\n")
    assert choose(source=("shark", "fish"), file=file).groups == ((2,), (0, 1))


def test_a_written_map_leaves_the_other_classes_to_their_names(tmp_path):
    assert choose(source=("fish", "goldfish"), file=yaml(tmp_path, "fish: tench\n")).groups == ((0,), (1,))


def test_a_written_map_gives_an_unlabelled_source_its_classes_in_order(tmp_path):
    chosen = choose(file=yaml(tmp_path, "shark: 2\nfish: tench\n"))
    assert (chosen.classes, chosen.groups) == (("shark", "fish"), ((2,), (0,)))


def test_numbers_serve_a_teacher_without_names(tmp_path):
    assert choose(None, source=("a", "b"), file=yaml(tmp_path, "a: 7\nb: [1, 2]\n")).groups == ((7,), (1, 2))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fish: tensch\n", r"'tensch' is no one class.*tench"),
        ("fish: 1000\n", "no class number 1000"),
        ("fish: -1\n", "no class number -1"),
        ("fihs: tench\n", r"'fihs' is not a class of the images; did you mean fish\?"),
        ("fish: [tench, tench]\n", "'fish' twice"),
        ("fish: tench\nfish: goldfish\n", "'fish' stands twice"),
        ("fish: []\n", "no name, number or list"),
        ("no: tench\n", "quote words"),
        ("fish: {a: b}\n", "no name, number or list"),
        ("- fish\n", "source class: teacher class"),
        ("", "source class: teacher class"),
        ("fish: [tench\n", "cannot be read"),
        ("fish: !!python/object/apply:os.getcwd []\n", "cannot be read"),
    ],
)
def test_a_wrong_map_is_one_line(tmp_path, text, says):
    with pytest.raises(ModelError, match=says) as failure:
        choose(source=("fish",), file=yaml(tmp_path, text))
    assert "\n" not in str(failure.value)


def test_an_absent_map_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.yaml"):
        read_class_map(tmp_path / "absent.yaml")


def test_what_the_card_says(tmp_path):
    chosen = choose(source=("fish",), file=yaml(tmp_path, "fish: [tench, goldfish]\n"))
    assert chosen.describe(IMAGENET) == {"fish": ["n01440764", "n01443537"]}
    assert chosen.describe(None) == {"fish": [0, 1]}
    assert ClassMap(classes=("a",)).describe(("a",)) is None


logits = hnp.arrays(np.float32, (4, 6), elements=st.floats(-80, 80, width=32))
GROUPS = ((4,), (0, 2), (5,))
MAPPED = ClassMap(classes=("a", "b", "c"), groups=GROUPS)


@given(logits)
def test_a_projection_is_the_renormalised_cut_of_the_softmax(logits_BT):
    exact_BT = np.exp(logits_BT.astype(np.longdouble))
    exact_BT /= exact_BT.sum(axis=1, keepdims=True)
    cut_BC = np.stack([exact_BT[:, list(group)].sum(axis=1) for group in GROUPS], axis=1)
    probabilities_BC, unmapped_B = MAPPED.project(logits_BT)
    assert probabilities_BC.dtype == np.float32
    np.testing.assert_allclose(probabilities_BC, cut_BC / cut_BC.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(unmapped_B, 1 - cut_BC.sum(axis=1), atol=1e-9)


def test_proportions_survive_where_almost_nothing_is_mapped():
    logits_BT = np.array([[-2000.0, 0, -9e9, 0, -2000.0 + np.log(3), -9e9]])
    probabilities_BC, unmapped_B = MAPPED.project(logits_BT)
    np.testing.assert_allclose(probabilities_BC, [[0.75, 0.25, 0]], rtol=1e-6)
    assert unmapped_B[0] == 1


def test_a_row_with_nothing_at_all_on_the_classes_is_even():
    logits_BT = np.array([[-np.inf, 0, -np.inf, 0, -np.inf, -np.inf], [0, -np.inf, -np.inf, 0, 0, -np.inf]])
    probabilities_BC, unmapped_B = MAPPED.project(logits_BT)
    np.testing.assert_allclose(probabilities_BC, [[1 / 3] * 3, [0.5, 0.5, 0]])
    np.testing.assert_allclose(unmapped_B, [1, 1 / 3])


@given(logits)
def test_without_groups_it_is_the_softmax(logits_BT):
    probabilities_BT, unmapped_B = ClassMap(classes=None).project(logits_BT)
    np.testing.assert_allclose(probabilities_BT.sum(axis=1), 1, atol=1e-6)
    assert (probabilities_BT.argmax(axis=1) == logits_BT.argmax(axis=1)).all() or np.unique(logits_BT).size < 24
    assert not unmapped_B.any()

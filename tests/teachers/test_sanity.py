import numpy as np

from buttress.teachers.sanity import agreement, near_chance, sanity_line


def test_agreement_counts_only_labelled_images():
    probabilities_BC = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    assert agreement(probabilities_BC, np.array([0, 1, 1, -1])) == (2, 3)


def test_a_good_teacher_gets_a_plain_line():
    assert sanity_line(241, 256, 10) == "teacher agrees with your labels on 241 of 256 images"


def test_near_chance_warns_and_says_what_to_check():
    line = sanity_line(27, 256, 10)
    assert "near chance (10.0% for 10 classes)" in line
    assert "mean/std" in line
    assert "\n" not in line


def test_the_bound_is_twice_chance_and_widens_for_few_images():
    assert near_chance(60, 256, 10)
    assert not near_chance(64, 256, 10)
    assert near_chance(3, 8, 10)
    assert not near_chance(5, 8, 10)


def test_two_classes_warn_near_a_coin_and_not_for_a_fair_teacher():
    assert near_chance(135, 256, 2)
    assert not near_chance(190, 256, 2)


def test_no_labels_and_one_class_say_no_nonsense():
    assert "has a label" in sanity_line(0, 0, 10)
    assert "chance" not in sanity_line(5, 5, 1)

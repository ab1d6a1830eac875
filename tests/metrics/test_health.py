"""From a store and a source to lists that a person can act on."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import COLOUR_TEACHER

from buttress.errors import SourceError, StoreError
from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.metrics.health import examine
from buttress.sources import ArraySource, Relabelled, Subset, id_hash, open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.views.draw import Drawer
from buttress.views.policy import MixUp, Policy, RandomCrop
from buttress.views.presets import preset

BLUE, GREEN, RED = range(3)
WRONG = {"red/02.png": BLUE, "green/01.png": RED, "blue/00.png": GREEN}


@pytest.fixture
def sure_teacher(colour_teacher, tmp_path_factory, monkeypatch):
    """The colour teacher with logits four times as large: a view of one colour leaves it little doubt."""
    folder = tmp_path_factory.mktemp("sure")
    (folder / "sure_teacher.py").write_text(COLOUR_TEACHER.replace("32.0", "8.0"))
    monkeypatch.syspath_prepend(folder)
    return "python:sure_teacher:look"


@pytest.fixture
def source(photos):
    return open_source(f"folder:{photos}")


@pytest.fixture
def store(source, sure_teacher, tmp_path):
    return labelled(source, sure_teacher, tmp_path / "plus", "source")


def labelled(source, teacher, out, classes, policy=None, max_bad=0.0):
    spec = TeacherSpec(uri=teacher, classes=classes, source_classes=tuple(source.classes))
    label_source(source, spec, policy or preset("crop"), LabelSettings(views=4, k=2, workers=0, max_bad=max_bad), out)
    return open_reinforcement(out)


def moved(source, changes):
    labels = np.array(source.labels)
    for sample_id, label in changes.items():
        labels[source.ids.index(sample_id)] = label
    return Relabelled(source, labels)


def test_labels_that_contradict_the_teacher_are_flagged_with_what_it_suggests(source, store):
    health = examine(moved(source, WRONG), store)
    entries = health.label_errors(10)
    flagged = [entry for entry in entries if entry["flagged"]]
    assert {(entry["id"], entry["label"], entry["suggested"]) for entry in flagged} == {
        ("red/02.png", "blue", "red"),
        ("green/01.png", "red", "green"),
        ("blue/00.png", "green", "blue"),
    }
    assert len(entries) == 10
    scores = [entry["score"] for entry in entries]
    assert scores == sorted(scores, reverse=True)
    assert all(entry["suggested_probability"] > entry["label_probability"] for entry in flagged)
    assert len(health.label_errors(1)) == 3  # all that are flagged
    assert health.unjudged is None


def test_every_sample_has_a_rank_and_the_likeliest_wrong_labels_come_first(photos, source, store):
    (photos / "red" / "new.png").write_bytes((photos / "red" / "05.png").read_bytes())
    extended = open_source(f"folder:{photos}")
    health = examine(moved(extended, {**WRONG, "red/08.png": -1}), store)
    ranked = [extended.ids[place] for place in health.ranked()]
    assert sorted(ranked) == sorted(extended.ids)
    assert ranked[:23] == [entry["id"] for entry in health.label_errors(99)]
    assert ranked[23:] == ["red/08.png", "red/new.png"]  # without a label; not in the store


def test_with_right_labels_nothing_is_flagged(source, store):
    health = examine(source, store)
    assert not any(entry["flagged"] for entry in health.label_errors(24))
    assert {entry["suggested"] for entry in health.label_errors(24)} <= {"blue", "green", "red"}
    assert all(entry["suggested"] != entry["label"] for entry in health.label_errors(24))


def test_the_hardest_have_the_lowest_probability_and_are_not_the_wrong_ones(source, store):
    health = examine(moved(source, WRONG), store)
    hardest = health.hardest(100)
    assert {entry["id"] for entry in hardest} == set(source.ids) - set(WRONG)
    assert [entry["score"] for entry in hardest] == sorted(entry["score"] for entry in hardest)
    number = source.ids.index(hardest[0]["id"])
    means = [store.target(number, view) for view in range(store.views)]
    own = [dict(zip(ids, values, strict=True)).get(int(source.labels[number]), rest) for values, ids, rest in means]
    assert hardest[0]["score"] == pytest.approx(np.mean(own), abs=1e-6)


def test_the_most_ambiguous_have_the_highest_entropy(source, store):
    entries = examine(source, store).ambiguous(5)
    assert len(entries) == 5
    assert [entry["score"] for entry in entries] == sorted((entry["score"] for entry in entries), reverse=True)
    assert 0 < entries[0]["score"] <= np.log(3)
    assert all(0 <= entry["disagreement"] <= entry["score"] for entry in entries)


def test_duplicates_are_found_among_images_that_the_store_does_not_know_too(photos, store, tmp_path):
    (photos / "blue" / "copy.png").write_bytes((photos / "red" / "02.png").read_bytes())
    (photos / "red" / "copy.png").write_bytes((photos / "red" / "05.png").read_bytes())
    health = examine(open_source(f"folder:{photos}"), store)
    assert health.duplicates() == [
        {"ids": ["blue/copy.png", "red/02.png"], "labels": ["blue", "red"], "same_label": False},
        {"ids": ["red/05.png", "red/copy.png"], "labels": ["red", "red"], "same_label": True},
    ]
    assert len(health.places) == 24
    assert health.near_duplicates() == []


def test_the_same_picture_in_another_file_is_a_near_duplicate(photos, store):
    import cv2

    small = np.asarray(cv2.imread(str(photos / "red" / "02.png")))
    big = cv2.resize(small, (90, 60), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(photos / "green" / "big.png"), big)
    (entry,) = examine(open_source(f"folder:{photos}"), store).near_duplicates()
    assert set(entry["ids"]) == {"red/02.png", "green/big.png"}
    assert not entry["same_label"]
    assert entry["score"] > 0.9


def test_part_of_the_source_in_any_order_is_judged_alike(source, store):
    noisy = moved(source, WRONG)
    kept = [place for place in range(24) if source.ids[place] in WRONG or place % 3]
    health = examine(Subset(noisy, kept[::-1]), store)
    assert {entry["id"] for entry in health.label_errors(1)} == set(WRONG)
    whole = {entry["id"]: entry["score"] for entry in examine(noisy, store).ambiguous(24)}
    assert all(entry["score"] == pytest.approx(whole[entry["id"]]) for entry in health.ambiguous(24))


def test_in_the_teachers_own_classes_no_label_is_judged(photos, colour_teacher, tmp_path):
    (photos / "red").rename(photos / "warm")
    source = open_source(f"folder:{photos}")
    health = examine(source, labelled(source, colour_teacher, tmp_path / "own", "teacher"))
    assert (health.label_errors(9), health.hardest(9)) == ([], [])
    assert "the teacher's own" in str(health.unjudged)
    assert {entry["suggested"] for entry in health.ambiguous(24)} == {"blue", "green", "red"}
    assert {entry["label"] for entry in health.ambiguous(24)} == {"blue", "green", "warm"}


def test_without_labels_the_rest_is_listed(source, store):
    health = examine(Relabelled(source, None), store)
    assert health.unjudged == "no sample has a label"
    assert health.label_errors(9) == []
    assert [entry["label"] for entry in health.ambiguous(2)] == [None, None]


def test_unlabelled_samples_are_not_judged_by_their_label(source, store):
    health = examine(moved(source, {**WRONG, "red/02.png": -1}), store)
    assert len(health.labelled) == 23
    assert {entry["id"] for entry in health.label_errors(1)} == {"green/01.png", "blue/00.png"}


def test_an_image_that_could_not_be_decoded_is_left_out(photos, colour_teacher, tmp_path):
    (photos / "red" / "02.png").write_bytes(b"no image")
    source = open_source(f"folder:{photos}")
    spec = TeacherSpec(uri=colour_teacher, source_classes=source.classes)
    settings = LabelSettings(views=2, k=2, workers=0, max_bad=0.1)
    label_source(source, spec, preset("crop"), settings, tmp_path / "plus")
    health = examine(source, open_reinforcement(tmp_path / "plus"))
    assert len(health.places) == 23
    assert len(health.ambiguous(99)) == 23
    assert health.near_duplicates() == []


def test_what_does_not_belong_is_refused(source, store):
    images = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(StoreError, match="other class names"):
        examine(ArraySource(images, [0, 1], ids=["a", "b"], classes=["x", "y"]), store)
    with pytest.raises(SourceError, match="none of its samples is in"):
        examine(ArraySource(images, [0, 1], ids=["a", "b"], classes=["blue", "green", "red"]), store)


def test_images_under_new_names_are_told_from_other_images(photos, store):
    for path in sorted(photos.glob("*/*.png")):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(SourceError, match=r"none of its samples is in .*24 of 24 were renamed"):
        examine(open_source(f"folder:{photos}"), store)


def test_neither_torch_nor_the_teacher_is_needed():
    import subprocess
    import sys

    code = "import sys, buttress.metrics.health; assert not {'torch', 'timm'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def plain_views_of(source, policy, number):
    drawer = Drawer(policy, 0, len(source))
    return [view for view in range(4) if drawer.mix(id_hash(source.ids[number]), view) is None]


def test_mixed_views_tell_nothing_of_a_label(source, sure_teacher, tmp_path):
    policy = Policy(ops=(RandomCrop(), MixUp(p=0.6)))
    store = labelled(source, sure_teacher, tmp_path / "mix+", "source", policy)
    plain = [plain_views_of(source, policy, number) for number in range(24)]
    only_mixed = [number for number in range(24) if not plain[number]]
    assert only_mixed  # else this tests less than it says
    health = examine(moved(source, WRONG), store)
    assert health.only_mixed.tolist() == only_mixed
    assert health.places.tolist() == [number for number in range(24) if plain[number]]
    assert (health.views, health.views + health.mixed) == (sum(map(len, plain)), 24 * 4)
    for place, number in enumerate(health.places.tolist()):
        own = [dict(zip(*store.target(number, view)[1::-1], strict=True)) for view in plain[number]]
        likeliest = int(health.said.ids_NK[place, 0])
        assert likeliest == int(source.labels[number])  # a plain view of one colour leaves no doubt
        assert health.said.values_NK[place, 0] == pytest.approx(np.mean([one[likeliest] for one in own]), abs=1e-6)
    flagged = {entry["id"] for entry in health.label_errors(1) if entry["flagged"]}
    assert flagged == set(WRONG) - {source.ids[number] for number in only_mixed}


def test_a_store_of_mixed_views_alone_is_refused(source, colour_teacher, tmp_path):
    store = labelled(source, colour_teacher, tmp_path / "mix+", "source", Policy(ops=(RandomCrop(), MixUp(p=1.0))))
    with pytest.raises(StoreError, match="every view is mixed with another image"):
        examine(source, store)


def test_views_without_labels_for_a_bad_partner_are_not_asked_for(photos, colour_teacher, tmp_path):
    (photos / "red" / "02.png").write_bytes(b"no image")
    source = open_source(f"folder:{photos}")
    store = labelled(source, colour_teacher, tmp_path / "mix+", "source", preset("small-mix"), 0.1)
    health = examine(source, store)
    assert len(health.places) + len(health.only_mixed) == 23

"""ImageNet-A, -R, -Sketch and -V2: a tree of class folders, and the classes that the field scores it over."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from tests.sources.every_source import refusal, samples
from tests.sources.tars import png

from buttress.models.imagenet import imagenet_classes
from buttress.sources import Relabelled, Subset, has_closed_classes, open_source
from buttress.sources.imagenet_lists import wordnet_ids

PUBLISHED = ("imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2")


def tree(root: Path, folders: Iterable[str]) -> Path:
    """One image in each class folder; its pixels tell the place of its folder, modulo 256."""
    for place, name in enumerate(folders):
        (root / name).mkdir(parents=True)
        (root / name / f"image{place}.png").write_bytes(png(place % 256, side=1))
    (root / "README.txt").write_text("classes")
    return root


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every set with one image in each of its classes."""
    place = tmp_path_factory.mktemp("imagenet")
    folders = {
        "imagenet-a": wordnet_ids("imagenet_a"),
        "imagenet-r": wordnet_ids("imagenet_r"),
        "imagenet-sketch": imagenet_classes(),
        "imagenet-v2": tuple(map(str, range(1000))),
    }
    return {name: tree(place / name, each) for name, each in folders.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_folder_is_the_class_it_is_named_by(whole, name, capsys):
    source = open_source(f"{name}:{whole[name]}")
    assert source.uri == f"{name}:{whole[name]}"
    assert source.classes is not None
    assert len(source.classes) == len(source) == (200 if name in ("imagenet-a", "imagenet-r") else 1000)
    assert len(set(source.labels.tolist())) == len(source)
    for index in range(0, len(source), 7):
        sample = source[index]
        folder, _, file = sample.id.partition("/")
        # the tree was made class by class, so the place in the file's name is the class, whatever order text has
        assert (sample.label, file) == (source.labels[index], f"image{source.labels[index]}.png")
        own = imagenet_classes()[int(folder)] if name == "imagenet-v2" else folder
        assert source.classes[source.labels[index]] == own
        assert sample.data == png(int(source.labels[index]) % 256, side=1)
    assert capsys.readouterr().err == ""


def test_class_numbers_are_numbers_and_not_text(tmp_path, capsys):
    source = open_source(f"imagenet-v2:{tree(tmp_path, ('2', '10', '999'))}")
    assert dict(zip(source.ids, source.labels.tolist(), strict=True)) == {
        "2/image0.png": 2,
        "10/image1.png": 10,
        "999/image2.png": 999,
    }
    assert [sample.label for sample in samples(source)] == source.labels.tolist()
    assert source.classes == imagenet_classes()
    assert "has images of 3 of the 1,000 classes; it is scored over all" in capsys.readouterr().err


def test_a_part_of_sketch_keeps_all_its_classes(tmp_path, capsys):
    source = open_source(f"imagenet-sketch:{tree(tmp_path, ('n01443537', 'n01440764'))}")
    assert source.classes == imagenet_classes()
    assert source.labels.tolist() == [0, 1]
    assert "has images of 2 of the 1,000 classes" in capsys.readouterr().err


@pytest.mark.parametrize("name", PUBLISHED)
def test_they_are_scored_over_their_classes_alone_and_so_are_parts_of_them(whole, name):
    source = open_source(f"{name}:{whole[name]}")
    assert has_closed_classes(source)
    assert has_closed_classes(Subset(source, [0, 5]))
    assert has_closed_classes(Relabelled(source, np.zeros(len(source), int)))
    assert not has_closed_classes(Relabelled(source, None))
    assert not has_closed_classes(open_source(f"folder:{whole[name]}"))


def test_without_labels_the_folders_are_not_looked_at(tmp_path):
    source = open_source(f"imagenet-a:{tree(tmp_path, ('any', 'thing'))}", labels=False)
    assert (source.classes, source.labels.tolist(), has_closed_classes(source)) == (None, [-1, -1], False)
    assert source[0].label is None


def test_it_pickles(whole):
    source = open_source(f"imagenet-v2:{whole['imagenet-v2']}")
    again = pickle.loads(pickle.dumps(source))
    assert again[3] == source[3]
    assert again.classes == source.classes


def test_one_in_a_store():
    store = fsspec.filesystem("memory")
    store.pipe({f"/v2/{number}/a.png": png(number) for number in (9, 10)})
    source = open_source("imagenet-v2:memory://v2")
    assert dict(zip(source.ids, source.labels.tolist(), strict=True)) == {"10/a.png": 10, "9/a.png": 9}


def test_another_set_of_two_hundred_is_refused(whole):
    message = refusal(f"imagenet-a:{whole['imagenet-r']}")
    both = len(set(wordnet_ids("imagenet_a")) & set(wordnet_ids("imagenet_r")))
    assert f"found 200 folders: {200 - both} are none of its classes (e.g. 'n01443537')" in message
    assert f"and {200 - both} of its classes are missing (e.g. 'n01558993')" in message
    assert "the folder that holds the 200 class folders of ImageNet-A, named by WordNet ids" in message


def test_a_class_that_is_missing(tmp_path):
    message = refusal(f"imagenet-r:{tree(tmp_path, wordnet_ids('imagenet_r')[1:])}")
    assert "found 199 folders: 1 of its classes are missing (e.g. 'n01443537')" in message


@pytest.mark.parametrize("strange", ["1000", "-1", "007", "n01440764", "1_000", "\u0663"])
def test_what_is_no_class_number(tmp_path, strange):
    message = refusal(f"imagenet-v2:{tree(tmp_path, ('7', strange))}")
    assert f"1 are none of its classes (e.g. {strange!r})" in message
    assert "named by class numbers 0 to 999" in message
    assert "missing" not in message


def test_the_folder_above_is_refused(whole):
    message = refusal(f"imagenet-sketch:{whole['imagenet-a'].parent}")
    assert "found 4 folders: 4 are none of its classes (e.g. 'imagenet-a'); give the folder that holds" in message


def test_loose_images_are_no_classes(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0))
    assert "found no folders but images; give the folder that holds" in refusal(f"imagenet-v2:{tmp_path}")


def test_what_no_folder_of_images_is_either(tmp_path):
    assert "no such folder" in refusal(f"imagenet-a:{tmp_path}/absent")
    assert "needs a path behind it" in refusal("imagenet-a:")
    assert "did you mean 'imagenet-v2:x'" in refusal("imagenet_v2:x")

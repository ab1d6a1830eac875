"""Folders of images: ids, labels, and one line for everything that cannot be a data set."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from tests.sources.every_source import refusal, samples

from buttress.errors import SourceError
from buttress.sources import UndecodableImage, open_source


def tree(root: Path, *files: str) -> str:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return f"folder:{root}"


def test_class_folders_with_nested_ones(tmp_path: Path) -> None:
    uri = tree(tmp_path, "dog/2.PNG", "cat/b/deep.jpeg", "cat/a.jpg", "dog/1.webp", "dog/notes.txt", "readme.md")
    source = open_source(uri)
    assert source.uri == uri
    assert source.classes == ("cat", "dog")
    assert list(source.ids) == ["cat/a.jpg", "cat/b/deep.jpeg", "dog/1.webp", "dog/2.PNG"]
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.labels.dtype == np.int32
    sample = source[1]
    assert (sample.id, sample.data, sample.label) == ("cat/b/deep.jpeg", b"cat/b/deep.jpeg", 0)
    assert [item.id for item in samples(source)] == list(source.ids)


def test_loose_images_are_unlabelled(tmp_path: Path) -> None:
    source = open_source(tree(tmp_path, "b.jpg", "a.tif", "empty/notes.txt"))
    assert source.classes is None
    assert list(source.ids) == ["a.tif", "b.jpg"]
    assert source[0].label is None


def test_labels_off_ignores_the_folders(tmp_path: Path) -> None:
    uri = tree(tmp_path, "b.jpg", "Cat/a.jpg", "cat/a.jpg")
    source = open_source(uri, labels=False)
    assert source.classes is None
    assert set(source.ids) == {"b.jpg", "Cat/a.jpg", "cat/a.jpg"}
    assert source.labels.tolist() == [-1, -1, -1]


def test_order_is_that_of_the_utf8_bytes(tmp_path: Path) -> None:
    names = ["a/\U0001f600.jpg", "a/\uff5e.jpg", "a/Z.jpg", "a/b.jpg", "a-/x.jpg", "a/é.jpg"]
    ids = list(open_source(tree(tmp_path, *names)).ids)
    assert ids == sorted(names, key=str.encode)


def test_hidden_files_and_folders_are_no_samples(tmp_path: Path) -> None:
    uri = tree(tmp_path, "cat/a.jpg", "cat/._a.jpg", "cat/.DS_Store", ".cache/b.jpg", "cat/.x/c.jpg")
    assert list(open_source(uri).ids) == ["cat/a.jpg"]


def test_decomposed_names_have_composed_ids_and_can_be_read(tmp_path: Path) -> None:
    source = open_source(tree(tmp_path, "cafe\u0301/e\u0301.jpg"))
    assert source.ids == ("caf\u00e9/\u00e9.jpg",)
    assert source.classes == ("caf\u00e9",)
    assert source[0].data == "cafe\u0301/e\u0301.jpg".encode()
    assert pickle.loads(pickle.dumps(source))[0] == source[0]


def test_two_names_equal_after_normalisation(tmp_path: Path) -> None:
    assert "two files are named" in refusal(tree(tmp_path, "a/e\u0301.jpg", "a/\u00e9.jpg"))


def test_absent_and_empty_folders_say_what_was_found(tmp_path: Path) -> None:
    assert "no such folder" in refusal(f"folder:{tmp_path}/absent")
    assert "found 0 images, and no other files" in refusal(f"folder:{tmp_path}")
    assert "found 0 images, 2 other files, e.g. 'a.txt'" in refusal(tree(tmp_path, "x/a.txt", "x/a.txt.bak")).replace(
        "a.txt.bak", "a.txt"
    )
    (tmp_path / "file.jpg").touch()
    assert "Not a directory" in refusal(f"folder:{tmp_path}/file.jpg")


def test_loose_images_beside_class_folders(tmp_path: Path) -> None:
    message = refusal(tree(tmp_path, "a.jpg", "cat/b.jpg", "cat/c.jpg"))
    assert "found 1 loose images (e.g. 'a.jpg') beside 2 in class folders" in message


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    assert "1 class folders hold no image ('dog')" in refusal(tree(tmp_path, "cat/a.jpg", "dog/a.txt"))


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    message = refusal(tree(tmp_path, "Cat/a.jpg", "cat/b.jpg"))
    assert "two classes of one name, 'Cat' and 'cat'" in message
    assert "two classes" in refusal(tree(tmp_path / "x", "e\u0301/a.jpg", "\u00e9/b.jpg"))


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):
        pass
    assert r"b'caf\xe9.jpg' is not UTF-8" in refusal(f"folder:{tmp_path}")


def test_an_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = tree(tmp_path, "cat/a.jpg", "dog/a.jpg")
    scandir = os.scandir

    def refused(path: str) -> object:
        if path.rstrip("/").endswith("dog"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # the tests may run as root, whom nothing refuses
    message = refusal(uri)
    assert "dog" in message
    assert "Permission denied" in message


def test_a_broken_link_is_one_bad_image(tmp_path: Path) -> None:
    uri = tree(tmp_path, "cat/a.jpg")
    (tmp_path / "cat" / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    source = open_source(uri)
    assert len(source) == 2
    with pytest.raises(UndecodableImage, match=r"'cat/b\.jpg' cannot be read"):
        source[1]


def test_a_failing_disk_is_no_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(tree(tmp_path, "cat/a.jpg"))

    def failing(*_: object, **__: object) -> object:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("builtins.open", failing)
    with pytest.raises(SourceError, match="Input/output error") as caught:
        source[0]
    assert not isinstance(caught.value, UndecodableImage)


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "a.jpg")
    uri = tree(tmp_path / "set", "dog/b.jpg")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere")
    assert list(open_source(uri).ids) == ["cat/a.jpg", "dog/b.jpg"]
    (tmp_path / "set" / "dog" / "up").symlink_to(tmp_path / "set")
    assert "leads back" in refusal(uri)


def test_it_pickles_and_outlives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path / "set", "cat/a.jpg")
    monkeypatch.chdir(tmp_path)
    source = pickle.loads(pickle.dumps(open_source("folder:set")))
    monkeypatch.chdir("/")
    assert source.uri == "folder:set"
    assert source[0].data == b"cat/a.jpg"


def test_real_photos(real_data: Path) -> None:
    source = open_source(f"folder:{real_data}/photos/imagenette224/val")
    assert len(source) == 500
    assert source.classes is not None
    assert (len(source.classes), source.classes[0]) == (10, "n01440764")
    assert set(source.labels.tolist()) == set(range(10))

"""Sets of torchvision by name: files or pictures, nothing downloaded unasked, nothing unpickled unproved."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torchvision.datasets
from tars import png
from tests.sources.every_source import refusal, samples

from buttress.sources import UndecodableImage, content_hash, open_source


class Cifar:
    """A small CIFAR in its published layout; torchvision is told the MD5s of these files in the place of the real."""

    def __init__(self, root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set = getattr(torchvision.datasets, name)
        self.folder = root / self.set.base_folder
        self.folder.mkdir(parents=True)
        self.names = [f"class {number}" for number in range(100 if name == "CIFAR100" else 10)]
        rng = np.random.default_rng(0)
        label_key = "fine_labels" if name == "CIFAR100" else "labels"
        self.images, self.labels = {}, {}
        for train, listed in ((True, self.set.train_list), (False, self.set.test_list)):
            batches = [rng.integers(0, 256, (4, 3072), np.uint8) for _ in listed]
            labels = [rng.integers(0, len(self.names), 4).tolist() for _ in listed]
            for (file, _), data, numbers in zip(listed, batches, labels, strict=True):
                self.write(file, {"data": data, label_key: numbers})
            self.images[train] = np.concatenate(batches).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            self.labels[train] = [number for numbers in labels for number in numbers]
        self.write(self.set.meta["filename"], {self.set.meta["key"]: self.names})
        for which in ("train_list", "test_list"):
            monkeypatch.setattr(self.set, which, [[file, self.md5(file)] for file, _ in getattr(self.set, which)])
        monkeypatch.setattr(self.set, "meta", self.set.meta | {"md5": self.md5(self.set.meta["filename"])})

    def write(self, file: str, content: Any) -> None:
        (self.folder / file).write_bytes(pickle.dumps(content))

    def md5(self, file: str) -> str:
        return hashlib.md5((self.folder / file).read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    cifar = Cifar(tmp_path, name, monkeypatch)
    for query, train in (("", True), ("?split=train", True), ("?split=test", False)):
        source = open_source(f"torchvision:{name}:{tmp_path}{query}")
        assert source.classes == tuple(cifar.names)
        assert source.labels.tolist() == cifar.labels[train]
        for sample, image in zip(samples(source), cifar.images[train], strict=True):
            np.testing.assert_array_equal(sample.data, image)
            assert sample.id == f"{content_hash(image):016x}"
    bare = open_source(f"torchvision:{name}:{tmp_path}", labels=False)
    assert (bare.classes, bare[0].label) == (None, None)


def test_pictures_pickle_small_and_come_back_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cifar(tmp_path, "CIFAR10", monkeypatch)
    source = open_source(f"torchvision:CIFAR10:{tmp_path}")
    packed = pickle.dumps(source)
    assert len(packed) < 4000
    for one, other in zip(samples(pickle.loads(packed)), samples(source), strict=True):
        assert (one.id, one.label) == (other.id, other.label)
        np.testing.assert_array_equal(one.data, other.data)


class Harm:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_R7_a_planted_cifar_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    cifar = Cifar(tmp_path, "CIFAR10", monkeypatch)
    cifar.write(file, Harm(tmp_path / "harm"))
    message = refusal(f"torchvision:CIFAR10:{tmp_path}")
    assert "not found or corrupted" in message
    assert not (tmp_path / "harm").exists()


def test_R7_sets_that_unpickle_what_nothing_proves_are_refused() -> None:
    for name in ("LSUN", "LSUNClass"):
        assert "unpickles a cache file" in refusal(f"torchvision:{name}:somewhere")


def test_what_is_not_there_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: Any) -> None:
        raise AssertionError("downloads")

    for name in ("CIFAR10", "MNIST", "SEMEION", "DTD"):
        for method in ("download", "_download"):
            if hasattr(getattr(torchvision.datasets, name), method):
                monkeypatch.setattr(getattr(torchvision.datasets, name), method, download)
        message = refusal(f"torchvision:{name}:{tmp_path}/none")
        assert f"(looked in {tmp_path}/none); say where it is with torchvision:{name}:ROOT" in message
        assert "?download=1" in message
        assert "download=True" not in message
        assert "downloads" in refusal(f"torchvision:{name}:{tmp_path}/none?download=1")
    monkeypatch.chdir(tmp_path)
    assert f"looked in {tmp_path}/data" in refusal("torchvision:CIFAR10")
    # no download= to offer
    assert "?download" not in refusal(f"torchvision:ImageNet:{tmp_path}/none")


def test_fake_data_takes_its_own_arguments() -> None:
    source = open_source("torchvision:FakeData?size=3&num_classes=4&random_offset=7")
    assert len(source) == 3
    assert all(sample.data.shape == (224, 224, 3) for sample in samples(source))  # type: ignore[union-attr]
    again = open_source("torchvision:FakeData?size=3&num_classes=4&random_offset=8")
    assert again.ids[:2] == source.ids[1:]
    assert set(source.classes or ()) <= set("0123")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        path = tmp_path / "sets" / ("cat", "dog")[number % 2] / f"é{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "sets"


def test_where_torchvision_reads_files_samples_are_files(folder: Path) -> None:
    source = open_source(f"torchvision:ImageFolder:{folder}")
    assert samples(source) == samples(open_source(f"folder:{folder}"))
    assert source.classes == ("cat", "dog")
    again = pickle.loads(pickle.dumps(source))
    assert samples(again) == samples(source)
    (folder / "cat" / "é2.png").unlink()
    with pytest.raises(UndecodableImage, match="cannot be read"):
        again[1]
    assert again[2].data == png(1)


def test_the_eurosat_layout(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "root" / "eurosat").mkdir(parents=True)
    folder.rename(tmp_path / "root" / "eurosat" / "2750")
    source = open_source(f"torchvision:EuroSAT:{tmp_path}/root")
    assert source.ids[0] == "eurosat/2750/cat/é0.png"
    assert (source[3].data, source[3].label) == (png(3), 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torchvision leaves broken files open
def test_R16_a_broken_picture_keeps_its_place(tmp_path: Path) -> None:
    """GTSRB opens its files itself, so a broken one shows when the set is looked through."""
    for number in range(3):
        path = tmp_path / "gtsrb" / "GTSRB" / "Training" / "00000" / f"{number}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6 2 2 255\n" + bytes([number] * 12)[: 5 if number == 1 else 12])
    source = open_source(f"torchvision:GTSRB:{tmp_path}?split=train")
    assert source.labels.tolist() == [0, -1, 0]
    with pytest.raises(UndecodableImage, match="cannot be read"):
        source[1]
    np.testing.assert_array_equal(source[2].data, np.full((2, 2, 3), 2, np.uint8))


@pytest.mark.parametrize(
    ("location", "match"),
    [
        ("CIFAR11", "torchvision has no data set 'CIFAR11'; did you mean CIFAR10"),
        ("VisionDataset", "has no data set 'VisionDataset'"),
        ("CIFAR10?spilt=test", "unknown key 'spilt' (known are download, split); did you mean split?"),
        ("CIFAR10?split=val", "its splits are train and test, not 'val'"),
        ("CIFAR10?download=perhaps", "download=perhaps: say 1 or 0"),
        ("EMNIST?spilt=letters", "(known are download, split, train); did you mean split?"),
        ("CIFAR10?root=x", "unknown key 'root'"),
        ("CIFAR10?train=0", "unknown key 'train'"),
        ("CIFAR10?transform=os.system", "unknown key 'transform'"),
        ("FakeData?size=many", "size=many: a whole number is expected"),
        ("FakeData:somewhere", "FakeData takes no folder; leave 'somewhere' out"),
        ("FakeData?size=0", "found 0 images"),
        ("DTD?split=none", "Unknown value 'none' for argument split"),
        ("", "torchvision: needs a name"),
    ],
)
def test_names_and_arguments_that_do_not_fit(location: str, match: str) -> None:
    assert match in refusal(f"torchvision:{location}")


def test_the_pets_layout(tmp_path: Path) -> None:
    root = tmp_path / "oxford-iiit-pet"
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    (root / "images" / "Abyssinian_1.jpg").write_bytes(png(1))
    (root / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\n")
    source = open_source(f"torchvision:OxfordIIITPet:{tmp_path}")
    assert (source.classes, source[0].label) == (("Abyssinian",), 0)
    np.testing.assert_array_equal(source[0].data, np.full((6, 6, 3), 1, np.uint8))


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ((PIL.Image.new("RGB", (4, 4)), {"boxes": []}), "its targets are no class numbers (dict)"),
        ((PIL.Image.new("RGB", (4, 4)), 1.5), "its targets are no class numbers (float)"),
        ((PIL.Image.new("RGB", (4, 4)), -7), "label -7 is outside"),
        ((PIL.Image.new("RGB", (4, 4)), PIL.Image.new("L", (4, 4)), 1), "not an image with a class"),
        ((np.zeros((4, 4)), 1), "not an image with a class"),
    ],
)
def test_sets_of_other_tasks_are_refused(monkeypatch: pytest.MonkeyPatch, item: Any, match: str) -> None:
    monkeypatch.setattr(torchvision.datasets.FakeData, "__getitem__", lambda self, index: item)
    assert match in refusal("torchvision:FakeData?size=2")


def test_pictures_are_labelled_or_not_and_bare_ones_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    item = (PIL.Image.new("L", (4, 4), 7), None)
    monkeypatch.setattr(torchvision.datasets.FakeData, "__getitem__", lambda self, index: item)
    source = open_source("torchvision:FakeData?size=2")
    assert (source.classes, source[1].label, source.ids[1]) == (None, None, source.ids[0] + ".1")
    np.testing.assert_array_equal(source[1].data, np.full((4, 4, 3), 7, np.uint8))


def test_opening_other_sources_imports_no_torch(folder: Path) -> None:
    opening = f"from buttress.sources import open_source; open_source('folder:{folder}')"
    code = f"import sys; {opening}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"

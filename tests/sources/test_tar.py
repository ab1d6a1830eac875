"""Folders of images in a tar file: the ids and classes of the folder, one read an image, bad members counted."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tars import png, tar_bytes, write_tar
from tests.sources.every_source import refusal, samples

from buttress.errors import SourceError
from buttress.sources import Subset, UndecodableImage, decode, open_source
from buttress.sources.class_folders import EXTENSIONS


def test_class_folders(tmp_path: Path) -> None:
    files = {"dog/2.PNG": b"d2", "cat/b/deep.jpeg": b"c", "readme.md": b"", "cat/a.jpg": b"ca", "./dog/1.webp": b"d1"}
    uri = f"tar:{write_tar(tmp_path / 'a.tar', files)}"
    source = open_source(uri)
    assert (source.uri, source.classes) == (uri, ("cat", "dog"))
    assert source.ids == ("dog/2.PNG", "cat/b/deep.jpeg", "cat/a.jpg", "dog/1.webp")
    assert [(sample.data, sample.label) for sample in samples(source)] == [
        (b"d2", 1),
        (b"c", 0),
        (b"ca", 0),
        (b"d1", 1),
    ]
    assert source[-1] == source[3]
    with pytest.raises(IndexError):
        source[4]
    bare = open_source(uri, labels=False)
    assert (bare.classes, bare[0].label, bare.ids) == (None, None, source.ids)


def test_a_folder_and_its_archive_have_the_same_samples(photos: Path, tmp_path: Path) -> None:
    folder = open_source(f"folder:{photos}")
    for name, arcname in (("with.tar", "photos"), ("without.tar", ".")):
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(photos, arcname)
        archive = open_source(f"tar:{tmp_path / name}")
        assert archive.classes == folder.classes
        order = [archive.ids.index(sample_id) for sample_id in folder.ids]
        assert samples(Subset(archive, order)) == samples(folder)


def test_the_top_folder_goes_only_where_it_is_above_class_folders(tmp_path: Path) -> None:
    assert open_source(f"tar:{write_tar(tmp_path / 'a.tar', {'x/1.jpg': b'', 'x/2.jpg': b''})}").ids == (
        "x/1.jpg",
        "x/2.jpg",
    )
    some = {"x/1.jpg": b"", "x/y/2.jpg": b""}
    assert open_source(f"tar:{write_tar(tmp_path / 'b.tar', some)}").ids == ("x/1.jpg", "x/y/2.jpg")
    deep = {"p/x/1.jpg": b"", "p/y/2.jpg": b""}
    assert open_source(f"tar:{write_tar(tmp_path / 'c.tar', deep)}").classes == ("x", "y")


def test_loose_images_are_unlabelled(tmp_path: Path) -> None:
    source = open_source(f"tar:{write_tar(tmp_path / 'a.tar', {'2.jpg': b'2', '1.jpg': b'1'})}")
    assert (source.classes, source.ids, source[1].data) == (None, ("2.jpg", "1.jpg"), b"1")


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ([("x.txt", b""), ("y", b"")], "found 0 images and 2 other files"),
        ([("a/x.jpg", b"1"), ("b/y.jpg", b"2"), ("./a//x.jpg", b"3")], "holds 'a/x.jpg' twice"),
        ([("a/e\u0301.jpg", b"1"), ("a/\u00e9.jpg", b"2")], "twice"),
        ([("a/x.jpg", b"1"), ("y.jpg", b"2")], "1 loose images"),
        ([("Cat/x.jpg", b"1"), ("cat/y.jpg", b"2")], "two classes of one name"),
        ([("a/../../x.jpg", b"1")], "leads out of the archive"),
    ],
)
def test_archives_that_are_no_data_set(tmp_path: Path, files: list[tuple[str, bytes]], match: str) -> None:
    assert match in refusal(f"tar:{write_tar(tmp_path / 'a.tar', files)}")


def test_a_compressed_archive_says_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert "compressed (gzip), so no image in it can be read alone; unpack" in refusal(f"tar:{tmp_path / 'a.tar.gz'}")


def test_R16_links_broken_and_huge_images_keep_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buttress.sources.tar_reader.MAX_IMAGE_BYTES", 5000)
    out = io.BytesIO()
    contents = [png(10), png(20)[:50], None, bytes(5001), b"", png(30)]
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number, data in enumerate(contents):
            entry = tarfile.TarInfo(f"cat/{number}.png")
            entry.size = len(data or b"")
            if data is None:
                entry.type, entry.linkname = tarfile.LNKTYPE, "cat/0.png"
            tar.addfile(entry, io.BytesIO(data or b""))
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    source = open_source(f"tar:{tmp_path / 'a.tar'}")
    assert source.ids == tuple(f"cat/{number}.png" for number in range(6))
    seen = {}
    for index in range(6):
        try:
            seen[index] = decode(source[index].data)[0, 0].tolist()
        except UndecodableImage as failure:
            seen[index] = str(failure)
    assert (seen[0], seen[5]) == ([10] * 3, [30] * 3)
    assert "truncated or damaged" in seen[1]
    assert "is a link inside the archive" in seen[2]
    assert "has 5,001 bytes, too many" in seen[3]
    assert "empty file" in seen[4]


def test_one_read_an_image_and_no_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(f"tar:{write_tar(tmp_path / 'a.tar', {f'{n}.png': png(n) for n in range(5)})}")
    reads: list[tuple[int, int]] = []
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        reads.append((length, offset))
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    before = len(os.listdir("/proc/self/fd"))
    for index in (3, 0, 4):
        assert source[index].data == png(index)
    assert reads == [(512 + len(png(n)), n * (512 + 512)) for n in (3, 0, 4)]
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_archive_that_changes_under_an_open_source(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": png(1), "b.png": png(2)})
    source = open_source(f"tar:{path}")
    path.write_bytes(tar_bytes({"c.png": png(1), "d.png": png(2)}))
    with pytest.raises(SourceError, match=r"a\.tar: has changed since it was opened \(at 'b\.png'\)"):
        source[1]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(SourceError, match="has changed"):
        source[0]
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        source[0]


def test_it_pickles_and_holds_no_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{n}.png": os.urandom(50_000) for n in range(4)})
    source = open_source(f"tar:{path}")
    before = samples(source)
    packed = pickle.dumps(source)
    assert len(packed) < 3000
    assert samples(pickle.loads(packed)) == before


STEM = st.text("abcé .-_7", min_size=1, max_size=12).filter(lambda stem: stem[0] != "." and stem not in ("..",))
PATHS = st.tuples(STEM, STEM, st.sampled_from(EXTENSIONS)).map(lambda parts: f"{parts[0]}/{parts[1]}{parts[2]}")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(PATHS, st.binary(max_size=1200), min_size=1, max_size=12),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_set_of_images_comes_back(tmp_path: Path, files: dict[str, bytes], form: int) -> None:
    source = open_source(f"tar:{write_tar(tmp_path / 'a.tar', files, form=form)}", labels=False)
    assert {sample.id: sample.data for sample in samples(source)} == files


def test_real_photos(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "photos" / "imagenette224" / "val"
    with tarfile.open(tmp_path / "val.tar", "w") as tar:
        tar.add(root, "val")
    folder, archive = open_source(f"folder:{root}"), open_source(f"tar:{tmp_path / 'val.tar'}")
    assert archive.classes == folder.classes
    place = {sample_id: index for index, sample_id in enumerate(archive.ids)}
    assert len(place) == len(folder) == 500
    for index in range(0, 500, 25):
        assert archive[place[folder.ids[index]]] == folder[index]

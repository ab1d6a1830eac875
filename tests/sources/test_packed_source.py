"""Packed folders: the same images in any order of work, whole or absent, and told when they are damaged."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import IO, cast

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.sources.every_source import refusal, samples
from tests.sources.test_tiles import picture

from buttress.errors import SettingsError, SourceError
from buttress.sources import ArraySource, FolderSource, decode, open_source, packing
from buttress.sources.packed import read_index
from buttress.sources.packing import PackSettings, pack_image, pack_source
from buttress.sources.tiles import Tiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photographs in two classes, of many shapes; one a PNG, one turned by EXIF, one that is no image."""
    root = tmp_path / "photos"
    for number, (width, height) in enumerate([(90, 60), (60, 90), (500, 40), (33, 34), (17, 900), (1, 1)]):
        image = Image.fromarray(picture(width, height, number))
        target = root / ("ä cat" if number % 2 else "dog") / f"{number}.{'png' if number == 3 else 'jpg'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 1 else 1
        image.save(target, exif=exif)
    return root


def packed(folder: Path, out: Path, workers: int = 0, **settings) -> Path:
    pack_source(open_source(f"folder:{folder}"), PackSettings(**settings), out, workers=workers, max_bad=0.2)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_ids_classes_and_labels_are_those_of_the_source(folder: Path, tmp_path: Path) -> None:
    source, made = (
        open_source(f"folder:{folder}"),
        open_source(f"packed:{packed(folder, tmp_path / 'p', short_side=48)}"),
    )
    assert (made.ids, made.classes, len(made)) == (source.ids, source.classes, 6)
    assert made.labels.tolist() == source.labels.tolist()
    assert made[-1] == made[5] and made[1].label == source[1].label
    with pytest.raises(IndexError):
        made[6]
    bare = open_source(made.uri, labels=False)
    assert bare.classes is None and bare[0].label is None
    assert samples(pickle.loads(pickle.dumps(made))) == samples(made)


def test_every_record_is_a_jpeg_for_every_reader_and_a_member_of_a_tar_file(folder: Path, tmp_path: Path) -> None:
    made = open_source(f"packed:{packed(folder, tmp_path / 'p', short_side=48)}")
    with tarfile.open(tmp_path / "p" / "part-00000.tar") as tar:
        members = {member.name: bytes(cast(IO[bytes], tar.extractfile(member)).read()) for member in tar}
    assert list(members) == list(made.ids)
    for sample, original in zip(samples(made), samples(open_source(f"folder:{folder}")), strict=True):
        assert isinstance(sample.data, bytes) and members[sample.id] == sample.data
        upright = decode(original.data)
        scale = min(1.0, 48 / min(upright.shape[:2]))
        expected = tuple(max(round(side * scale), 1) for side in upright.shape[:2])
        pixels = decode(sample.data)
        assert pixels.shape[:2] == expected
        with_opencv = cv2.imdecode(np.frombuffer(sample.data, np.uint8), cv2.IMREAD_COLOR)
        assert with_opencv is not None and with_opencv.shape == pixels.shape
        with Image.open(io.BytesIO(sample.data)) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", pixels.shape[1::-1])
        assert Tiles.of(sample.data) is not None
        near = cv2.resize(upright, pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(near.astype(int) - pixels).mean() < 25  # 4:2:0 of noise


def test_workers_do_not_change_a_byte(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_TASK_IMAGES", 2)
    alone, two = (files(packed(folder, tmp_path / f"p{n}", n)) for n in (0, 2))
    assert alone == two


def test_an_image_that_does_not_decode_is_named_and_left_out(folder: Path, tmp_path: Path, capsys) -> None:
    (folder / "dog" / "4.jpg").write_bytes(b"not an image")
    made = open_source(f"packed:{packed(folder, tmp_path / 'p')}")
    assert len(made) == 5 and "dog/4.jpg" not in made.ids
    assert "dog/4.jpg: image cannot be decoded, left out" in capsys.readouterr().err
    with pytest.raises(SourceError, match=r"1 of 6 images cannot be decoded, more than --max-bad allows \(10\.00%"):
        pack_source(open_source(f"folder:{folder}"), PackSettings(), tmp_path / "q", workers=0, max_bad=0.1)
    for path in folder.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(SourceError, match="none of its 6 images can be decoded"):
        pack_source(open_source(f"folder:{folder}"), PackSettings(), tmp_path / "r", workers=0, max_bad=1)


def test_it_goes_on_where_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PART_IMAGES", 2)
    whole = files(packed(folder, tmp_path / "p"))
    assert [name for name in whole if name.endswith(".tar")] == [f"part-0000{n}.tar" for n in range(3)]
    done = []

    def counted(pixels, settings):
        done.append(1)
        return pack_image(pixels, settings)

    monkeypatch.setattr(packing, "pack_image", counted)
    packed(folder, tmp_path / "p")
    assert not done and files(tmp_path / "p") == whole
    # unfinished, cut, changed: each alone is made again, and only what it touches
    for name, spoil in (
        ("packed.json", lambda data: None),
        ("part-00001.safetensors", lambda data: None),
        ("part-00001.tar", lambda data: data[:-700]),
        ("part-00001.tar", lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:]),
        ("part-00001.safetensors", lambda data: data[:-1]),
        ("part-00001.tar", lambda data: b""),
    ):
        done.clear()
        path = tmp_path / "p" / name
        spoilt = spoil(path.read_bytes())
        path.unlink() if spoilt is None else path.write_bytes(spoilt)
        packed(folder, tmp_path / "p")
        assert files(tmp_path / "p") == whole and len(done) == (0 if name == "packed.json" else 2), name


def test_a_killed_packing_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    pixels = picture(700, 700)
    for number in range(60):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number:02}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(tmp_path / "p")]
    process = subprocess.Popen(command)
    while not list((tmp_path / "p").glob("part-00001.safetensors")):
        time.sleep(0.01)
        assert process.poll() is None, "it was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "is not finished; run the same buttress pack command again" in refusal(f"packed:{tmp_path / 'p'}")
    subprocess.run(command, check=True, timeout=100)
    subprocess.run([*command[:-1], str(tmp_path / "q")], check=True, timeout=100)
    assert files(tmp_path / "p") == files(tmp_path / "q")


KILLED = """
import sys
from pathlib import Path
from typing import IO, cast
from buttress.sources import open_source, packing
packing.PART_IMAGES = 10
packing.pack_source(open_source(f"folder:{sys.argv[1]}"), packing.PackSettings(), Path(sys.argv[2]), workers=0)
"""


def test_damage_is_told_where_it_is_read(folder: Path, tmp_path: Path) -> None:
    out = packed(folder, tmp_path / "p")
    tar, index = out / "part-00000.tar", out / "part-00000.safetensors"
    content, told = tar.read_bytes(), read_index(index)[0]
    place = int(told.offsets[2]) + 300
    tar.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    source = open_source(f"packed:{out}")
    assert source[1].data
    with pytest.raises(SourceError, match=rf"part-00000\.tar: '{source.ids[2]}' is damaged; delete it and run"):
        source[2]
    tar.write_bytes(content[:-512])
    with pytest.raises(SourceError, match=r"has [\d,]+ bytes and not [\d,]+"):
        open_source(f"packed:{out}")[0]
    tar.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        open_source(f"packed:{out}")[0]
    flipped = bytearray(index.read_bytes())
    flipped[flipped.index(b"dog/")] ^= 1
    index.write_bytes(flipped)
    assert "is not the index that packed.json names" in refusal(f"packed:{out}")
    index.write_bytes(b"\xff" * 100)
    assert "cannot be read" in refusal(f"packed:{out}")
    index.unlink()
    assert "cannot be read" in refusal(f"packed:{out}")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("[]", "no card of format 1"),
        ('{"format": 2}', "no card of format 1"),
        ('{"format": 1}', "is damaged"),
        ("{", "not valid JSON"),
    ],
)
def test_a_card_that_is_not_ours(card: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "packed.json").write_text(card)
    assert said in refusal(f"packed:{tmp_path}")


def test_what_cannot_be_packed(folder: Path, tmp_path: Path) -> None:
    assert "no such folder" in refusal(f"packed:{tmp_path / 'none'}")
    assert "holds no packed.json" in refusal(f"packed:{folder}")
    out = packed(folder, tmp_path / "p")
    with pytest.raises(SourceError, match="was packed from other images, or otherwise; name another --out"):
        packed(folder, out, quality=80)
    (folder / "dog" / "0.jpg").unlink()
    with pytest.raises(SourceError, match="was packed from other images, or otherwise"):
        packed(folder, out)
    with pytest.raises(SettingsError, match="so it is not a packed folder"):
        packed(folder, folder)
    for wrong in ({"short_side": 0}, {"quality": 101}):
        with pytest.raises(SettingsError, match="lies in"):
            PackSettings(**wrong)
    wide = ArraySource(np.zeros((1, 4, 66_000, 3), np.uint8))
    with pytest.raises(SourceError, match="1 of 1 images cannot be decoded"):
        pack_source(wide, PackSettings(), tmp_path / "wide", workers=0)
    assert f"did you mean 'packed:{out}'" in refusal(str(out))


def test_unlabelled_images_and_odd_names(tmp_path: Path) -> None:
    for name in ("a\u0308.jpg", "x" * 180 + ".jpg", "b c.jpg"):
        Image.fromarray(picture(20, 20)).save(tmp_path / name)
    source = FolderSource(tmp_path)
    pack_source(source, PackSettings(), tmp_path / "p", workers=0)
    made = open_source(f"packed:{tmp_path / 'p'}")
    assert (made.ids, made.classes) == (source.ids, None)
    assert os.listdir(tmp_path / "p")

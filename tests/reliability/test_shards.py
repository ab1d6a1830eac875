"""Archives as sources of a reinforcement: broken images, other orders, and a move from a folder into a tar file."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from buttress.cli import main
from buttress.errors import LabellingError, SourceError
from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.loading.batches import ReinforcedBatches
from buttress.loading.loader import BatchLoader
from buttress.sources import Relabelled, Subset, open_source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.views.presets import preset

BAD = {3: "truncated", 10: "no image", 17: "a link"}


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> str:
    """The 24 photos in two shards with their classes; three images are broken, each in its own way."""
    files = sorted(photos.rglob("*.png"), key=lambda path: path.name)
    (tmp_path / "classes.txt").write_text("blue\ngreen\nred\n")
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number in range(12 * shard, 12 * shard + 12):
                write(tar, number, files[number])
    return f"wds:{tmp_path}/{{0..1}}.tar?classes={tmp_path}/classes.txt"


def write(tar: tarfile.TarFile, number: int, file: Path) -> None:
    data = file.read_bytes()
    image, label = tarfile.TarInfo(f"{number:02d}.png"), tarfile.TarInfo(f"{number:02d}.cls")
    if number == 3:
        data = data[:60]
    if number == 17:
        image.type, image.linkname, data = tarfile.SYMTYPE, str(file), b""
    if number != 10:
        image.size = len(data)
        tar.addfile(image, io.BytesIO(data))
    label.size = 1
    tar.addfile(label, io.BytesIO(b"%d" % ("blue", "green", "red").index(file.parent.name)))


def labelled(source, teacher: str, out: Path, **settings):
    spec = TeacherSpec(uri=teacher, source_classes=source.classes)
    options = {"views": 4, "k": 2, "workers": 0, "max_bad": 0.2, **settings}
    label_source(source, spec, preset("randaug"), LabelSettings(**options), out)
    return open_reinforcement(out)


def test_R16_broken_images_in_shards_are_counted_and_shift_nothing(shards, colour_teacher, tmp_path, capsys):
    source = open_source(shards)
    store = labelled(source, colour_teacher, tmp_path / "plus")
    bad = sorted(source.ids[number] for number in BAD)
    said = capsys.readouterr().err
    assert all(f"{sample_id}: image cannot be decoded, left out" in said for sample_id in bad)
    assert np.flatnonzero(np.asarray(store.content_hashes) == 0).tolist() == sorted(BAD)
    # a store of the whole images alone says the same of each of them
    whole = Subset(source, [index for index in range(24) if index not in BAD])
    other = labelled(whole, colour_teacher, tmp_path / "whole")
    for row, index in enumerate(whole.indices.tolist()):
        one, two = store.targets(np.array([index]), 2), other.targets(np.array([row]), 2)
        assert all(np.array_equal(left, right) for left, right in zip(one, two, strict=True))
    batches = ReinforcedBatches(source, store, size=16)
    loader = BatchLoader(batches, batch=4, shuffle=False)
    assert [sample_id for batch in loader for sample_id in batch.ids] == list(whole.ids)


def test_R16_too_many_broken_images_stop_the_labelling(shards, colour_teacher, tmp_path):
    with pytest.raises(LabellingError, match="of 24 images cannot be decoded, more than --max-bad"):
        labelled(open_source(shards), colour_teacher, tmp_path / "plus", max_bad=0.1)


def test_R9_workers_make_the_same_store_from_shards(shards, colour_teacher, tmp_path):
    source = open_source(shards)
    for workers in (0, 2):
        labelled(source, colour_teacher, tmp_path / str(workers), workers=workers, views_per_block=12)
    files = sorted(path.name for path in (tmp_path / "0").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "2").iterdir())
    assert all((tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes() for name in files)


def test_R2_permuted_and_filtered_shards_get_their_own_records(shards, colour_teacher, tmp_path):
    source = open_source(shards)
    store = labelled(source, colour_teacher, tmp_path / "plus")
    chosen = np.random.default_rng(2).permutation([index for index in range(24) if index not in BAD])[:15]
    batches = ReinforcedBatches(Subset(source, chosen), store, size=16, p=1.0)
    arrays = batches.batch(range(15), 1)
    straight = ReinforcedBatches(source, store, size=16, p=1.0).batch(chosen, 1)
    assert np.array_equal(arrays.views_BHWC, straight.views_BHWC)
    for field in ("values_BK", "ids_BK", "rest_B"):
        assert np.array_equal(getattr(arrays, field), getattr(straight, field))


def test_a_sample_in_another_shard_is_unknown(shards, colour_teacher, tmp_path):
    store = labelled(open_source(shards), colour_teacher, tmp_path / "plus")
    (tmp_path / "1.tar").rename(tmp_path / "one.tar")
    (tmp_path / "1.tar.index").rename(tmp_path / "one.tar.index")
    moved = open_source(f"wds:{tmp_path}/{{0,one}}.tar?classes={tmp_path}/classes.txt")
    with pytest.raises(SourceError, match=r"one\.tar/12 has no stored labels \(12 of 24 samples have none\)"):
        ReinforcedBatches(moved, store, size=16)


def test_a_reinforcement_of_a_folder_serves_its_archive(photos, colour_teacher, tmp_path, capsys):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, "photos")
    out = str(tmp_path / "plus")
    words = ["reinforce", "--source", f"folder:{photos}", "--teacher", colour_teacher, "--views", "2", "--k", "2"]
    assert main([*words, "--workers", "0", "--out", out]) == 0
    assert main(["verify", out, "--source", f"tar:{tmp_path}/photos.tar"]) == 0
    assert "24 of 24 samples are reinforced" in capsys.readouterr().out
    store, archive = open_reinforcement(Path(out)), open_source(f"tar:{tmp_path}/photos.tar")
    unlabelled = Relabelled(archive, None)
    assert len(ReinforcedBatches(unlabelled, store, size=16).batch(range(24), 0).index_B) == 24


def test_commands_take_shards_and_tell_mistakes_in_one_line(shards, colour_teacher, tmp_path, capsys):
    words = ["reinforce", "--source", shards, "--teacher", colour_teacher, "--views", "2", "--k", "2", "--workers", "0"]
    assert main([*words, "--max-bad", "0.2", "--out", str(tmp_path / "plus")]) == 0
    (tmp_path / "1.tar").write_bytes((tmp_path / "1.tar").read_bytes()[:3000])
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "plus")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "1.tar: truncated or" in lines[0]

"""Verification: whole is whole, and whatever is wrong is named by file and place."""

import numpy as np
import pytest

from buttress.store.verify import check_integrity
from buttress.views.draw import Drawer
from buttress.views.presets import preset

from . import small_store
from .small_store import Plan, id_hashes_of


@pytest.fixture
def folder(tmp_path):
    return Plan(6, 4, bad=(4,)).write(tmp_path / "photos+", (3,), (2,))


def found(folder):
    return {(problem.file.name, problem.place) for problem in check_integrity(folder).problems}


def test_a_whole_store_is_whole(folder):
    integrity = check_integrity(folder)
    assert integrity.whole
    assert (integrity.rows, integrity.views) == (6, 4)
    assert integrity.bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_all_problems_are_listed_at_once(folder):
    part = folder / "part-00000-v0002.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 4
    data[-20] ^= 4
    part.write_bytes(data)
    (folder / "part-00001-v0000.safetensors").unlink()
    (folder / "index.safetensors").unlink()
    (folder / "probes.safetensors").write_bytes(b"junk")
    assert found(folder) == {
        ("part-00000-v0002.safetensors", "plane of view 2, rows 0-2"),
        ("part-00000-v0002.safetensors", "plane of view 3, rows 0-2"),
        ("part-00001-v0000.safetensors", "file"),
        ("probes.safetensors", "file"),
    }


def test_a_wrong_index_is_found(folder):
    Plan(5, 1).write(folder.parent / "other")
    (folder / "index.safetensors").write_bytes((folder.parent / "other" / "index.safetensors").read_bytes())
    assert found(folder) == {("index.safetensors", "file")}
    (folder / "index.safetensors").unlink()
    assert not found(folder)  # readers sort anew


def test_files_that_the_card_does_not_know_are_named(folder):
    for name in ("part-00007-v0000.safetensors", "part-00007-v0000.json", ".x.tmp", "extra.safetensors"):
        (folder / name).touch()
    (folder / "README.md").touch()
    (folder / ".work").mkdir()
    assert {name for name, _ in found(folder)} == {
        "part-00007-v0000.safetensors",
        "part-00007-v0000.json",
        ".x.tmp",
        "extra.safetensors",
    }


def test_labels_without_an_image_and_images_without_labels_are_found(tmp_path):
    plan = Plan(4, 2, bad=(1,))
    plan.labels_VNS[1, 2] = 0
    plan.write(tmp_path / "a")
    assert found(tmp_path / "a") == {("part-00000-v0000.safetensors", "plane of view 1, row 2")}
    plan = Plan(4, 2, bad=(1,))
    plan.labels_VNS[0, 1] = plan.labels_VNS[0, 0]
    plan.write(tmp_path / "b")
    assert found(tmp_path / "b") == {("part-00000-v0000.safetensors", "plane of view 0, row 1")}


def test_only_views_that_are_mixed_with_a_bad_image_may_be_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(small_store, "POLICY", preset("mix"))
    drawer, hashes = Drawer(preset("mix"), 5, 12), id_hashes_of(12)
    mixes = {(view, row): drawer.mix(int(hashes[row]), view) for view in range(4) for row in range(12)}
    partners = [mix.partner for mix in mixes.values() if mix is not None]
    bad = max(partners, key=partners.count)
    plan = Plan(12, 4, bad=(bad,))
    mixed = {place: mix for place, mix in mixes.items() if mix is not None and place[1] != bad}
    lost = [place for place, mix in mixed.items() if mix.partner == bad]
    others = [place for place in mixed if place not in lost]
    alone = [place for place in mixes if place not in mixed and place[1] != bad]
    for place in lost:
        plan.labels_VNS[place] = 0
    assert len(lost) >= 2
    assert check_integrity(plan.write(tmp_path / "right", (4,), (2,))).whole
    for name, place in (("mixed", others[0]), ("alone", alone[0])):
        kept, plan.labels_VNS[place] = plan.labels_VNS[place].copy(), 0
        (problem,) = check_integrity(plan.write(tmp_path / name)).problems
        assert problem.place == f"plane of view {place[0]}, row {place[1]}"
        assert problem.what == "the row has an image, but no labels"
        plan.labels_VNS[place] = kept


def test_two_rows_with_one_hash_are_found(tmp_path, monkeypatch):
    plan = Plan(4, 2)
    plan.id_hashes[3] = plan.id_hashes[0]
    monkeypatch.setattr(f"{Plan.__module__}.write_index", lambda *_: None)
    plan.write(tmp_path)
    problems = check_integrity(tmp_path).problems
    assert [problem.what for problem in problems] == ["rows 0 and 3 have the same id hash; ids must be unique"]


def test_a_skipped_list_that_does_not_fit_is_found(tmp_path):
    plan = Plan(4, 2, bad=(1,))
    plan.bad = ()
    plan.write(tmp_path)
    assert found(tmp_path) == {("reinforcement.json", "skipped")}
    assert np.flatnonzero(plan.content_hashes == 0).tolist() == [1]


@pytest.mark.parametrize(("ids", "bad"), [((0, 1, 7), ()), ((2, 5, 2), (0, 1)), ((7, 7, 7), ())])
def test_class_ids_that_cannot_be_are_found_though_the_checksum_fits(tmp_path, ids, bad):
    plan = Plan(6, 2, bad=bad)
    assert not found(plan.write(tmp_path / "whole"))
    flag = plan.labels_VNS[1, 4, -1] & 2  # behind 3 value bytes, 3 ids of 3 bits; bit 9 says that p1 is implied
    packed = ids[0] | ids[1] << 3 | ids[2] << 6
    plan.labels_VNS[1, 4, -2:] = packed & 255, packed >> 8 | flag
    plan.write(tmp_path / "a", (3,))
    assert found(tmp_path / "a") == {("part-00001-v0000.safetensors", "plane of view 1, row 4")}
    (problem,) = check_integrity(tmp_path / "a").problems
    assert problem.what == "the row has class ids that are not 3 distinct ones below 7"

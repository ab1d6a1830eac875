"""Writing: equal inputs give equal bytes, appending touches nothing that exists, only what is whole counts."""

import numpy as np
import pytest

from buttress.errors import StoreError
from buttress.store.reader import open_reinforcement
from buttress.store.verify import check_integrity
from buttress.store.writer import existing_parts, remove_leftovers, write_index

from .small_store import Plan


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_more_views_are_more_parts(tmp_path):
    plan = Plan(6, 5)
    first = [plan.write_part(tmp_path, 0, (0, 6), (0, 3))]
    plan.finish(tmp_path, first)
    before = contents(tmp_path)
    plan.finish(tmp_path, [*first, plan.write_part(tmp_path, 0, (0, 6), (3, 5))])
    after = contents(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"reinforcement.json"}
    assert after.keys() - before.keys() == {"part-00000-v0003.safetensors", "part-00000-v0003.json"}
    assert check_integrity(tmp_path).whole
    np.testing.assert_array_equal(open_reinforcement(tmp_path).records(np.arange(6), 4), plan.labels_VNS[4])


def test_more_rows_are_more_row_blocks(tmp_path):
    plan = Plan(9, 2)
    first = [plan.write_part(tmp_path, 0, (0, 4), (0, 2))]
    plan.finish(tmp_path, first, rows=4)
    before = contents(tmp_path)
    assert open_reinforcement(tmp_path).rows_of(plan.id_hashes).tolist() == [0, 1, 2, 3, -1, -1, -1, -1, -1]
    plan.finish(tmp_path, [*first, plan.write_part(tmp_path, 1, (4, 9), (0, 2))])
    after = contents(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"reinforcement.json", "index.safetensors"}
    assert check_integrity(tmp_path).whole
    assert open_reinforcement(tmp_path).rows_of(plan.id_hashes).tolist() == list(range(9))


def test_only_whole_parts_of_these_settings_exist(tmp_path):
    plan = Plan(6, 4)
    plan.write(tmp_path, (3,), (2,))
    names = ["part-00000-v0000", "part-00000-v0002", "part-00001-v0000", "part-00001-v0002"]
    entries = existing_parts(tmp_path, plan.digest)
    assert [entry.name for entry in entries] == names
    assert tuple(entries) == open_reinforcement(tmp_path).card.parts
    assert existing_parts(tmp_path, "0" * 64) == []
    (tmp_path / "part-00000-v0002.json").unlink()
    part = tmp_path / "part-00001-v0000.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    (tmp_path / "part-00001-v0002.safetensors").rename(tmp_path / "part-00002-v0002.safetensors")
    kept = existing_parts(tmp_path, plan.digest)
    assert [entry.name for entry in kept] == names[:1]
    (tmp_path / ".part-00000-v0002.safetensors.abc.tmp").touch()
    (tmp_path / "notes.txt").touch()
    removed = {path.name for path in remove_leftovers(tmp_path, kept)}
    assert ".part-00000-v0002.safetensors.abc.tmp" in removed
    assert "part-00002-v0002.safetensors" in removed
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        "part-00000-v0000.safetensors",
        "part-00000-v0000.json",
        "index.safetensors",
        "probes.safetensors",
        "reinforcement.json",
        "notes.txt",
    }


def test_a_part_under_another_name_does_not_exist(tmp_path):
    plan = Plan(4, 2)
    plan.write_part(tmp_path, 0, (0, 4), (0, 2))
    for ending in ("safetensors", "json"):
        (tmp_path / f"part-00000-v0000.{ending}").rename(tmp_path / f"part-00000-v0007.{ending}")
    assert existing_parts(tmp_path, plan.digest) == []


def test_two_rows_with_one_hash_are_refused(tmp_path):
    with pytest.raises(StoreError, match="rows 1 and 3 have the same id hash"):
        write_index(tmp_path, np.array([5, 9, 1, 9], np.uint64))


def test_the_folder_weighs_what_is_promised(tmp_path):
    plan = Plan(3000, 4, k=10, classes=1000)
    plan.write(tmp_path, (1000,), (2,))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert plan.codec.stride == 23
    assert size <= 23 * 3000 * 4 + 24 * 3000 + 65_536

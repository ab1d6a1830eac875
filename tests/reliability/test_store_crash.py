"""A writer that dies or cannot write leaves what was finished, nothing half-done that counts, and can go on."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from buttress.errors import StoreError
from buttress.store.reader import open_reinforcement
from buttress.store.verify import check_integrity
from buttress.store.writer import existing_parts, remove_leftovers
from store.small_store import Plan

CORNERS = [(0, (0, 3), (0, 2)), (0, (0, 3), (2, 3)), (1, (3, 5), (0, 2)), (1, (3, 5), (2, 3))]


def label(folder: Path, plan: Plan) -> int:
    """Write what is missing, as a labelling that goes on would; returns how many parts it wrote."""
    have = {(entry.row_block, entry.rows, entry.views): entry for entry in existing_parts(folder, plan.digest)}
    remove_leftovers(folder, have.values())
    missing = [corner for corner in CORNERS if corner not in have]
    have.update({corner: plan.write_part(folder, *corner) for corner in missing})
    plan.finish(folder, [have[corner] for corner in CORNERS])
    return len(missing)


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; returns its exit status as `os.waitpid` gives it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except OSError:
            os._exit(3)
        finally:
            os._exit(4)
    return os.waitpid(child, 0)[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    label(folder, Plan(5, 3))
    assert check_integrity(folder).whole
    return contents(folder)


@pytest.mark.parametrize("before", [True, False], ids=["before the rename", "after the rename"])
@pytest.mark.parametrize("renames", range(1, 12))
def test_R11_a_writer_killed_around_any_rename_leaves_a_folder_that_can_be_finished(tmp_path, whole, renames, before):
    plan = Plan(5, 3)

    def work() -> None:
        rename, count = os.replace, 0

        def killing(source, target):
            nonlocal count
            count += 1
            if before and count == renames:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)
            if count == renames:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, "replace", killing)  # noqa: B010 - mypy: a function in a module
        label(tmp_path, plan)

    status = in_child(work)
    assert os.WIFSIGNALED(status)
    finished = len(existing_parts(tmp_path, plan.digest))
    assert finished == min((renames - before) // 2, 4)
    if renames == 11 and not before:
        assert check_integrity(tmp_path).whole
    else:
        with pytest.raises(StoreError, match="no reinforcement here"):
            open_reinforcement(tmp_path)
    assert label(tmp_path, plan) == 4 - finished
    assert contents(tmp_path) == whole


def test_R11_appending_that_was_killed_leaves_the_old_reinforcement_whole(tmp_path):
    plan = Plan(5, 3)
    first = [plan.write_part(tmp_path, 0, (0, 3), (0, 2))]
    plan.finish(tmp_path, first, rows=3)
    plan.write_part(tmp_path, 1, (3, 5), (0, 2))
    (tmp_path / "part-00001-v0000.json").unlink()
    reinforcement = open_reinforcement(tmp_path)
    assert reinforcement.rows_of(plan.id_hashes).tolist() == [0, 1, 2, -1, -1]
    reinforcement.targets(np.arange(3), 1)
    assert {problem.file.name for problem in check_integrity(tmp_path).problems} == {"part-00001-v0000.safetensors"}


def test_R13_a_disk_that_is_full_at_any_byte_leaves_no_part_and_no_litter(tmp_path):
    plan = Plan(3, 2)
    plan.write_part(tmp_path, 0, (0, 3), (0, 2))
    size = (tmp_path / "part-00000-v0000.safetensors").stat().st_size
    for path in tmp_path.iterdir():
        path.unlink()
    for limit in range(0, size, 9):

        def work(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            plan.write_part(tmp_path, 0, (0, 3), (0, 2))

        assert os.waitstatus_to_exitcode(in_child(work)) == 3
        assert list(tmp_path.iterdir()) == []

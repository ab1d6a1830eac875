"""The labeller, killed: whatever happens, a second start ends with the very bytes of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = int(os.environ.get("BUTTRESS_KILLS", "10"))
SEED = 20261121

SLOW_TEACHER = """
import time
import numpy as np
from colour_teacher import classes, look as quick

def look(views_BHWC):
    time.sleep(0.01)
    return quick(views_BHWC)

look.size, look.classes = 24, classes
"""
BLOCKS = 8  # 24 images x 340 views in blocks of 3 images


def command(photos: Path, out: Path, workers: int) -> list[str]:
    words = f"reinforce --source folder:{photos} --teacher python:slow_teacher:look --views 340 --k 2 --batch 64"
    return [sys.executable, "-m", "buttress", *words.split(), "--workers", str(workers), "--out", str(out)]


@pytest.fixture
def slow_teacher(colour_teacher) -> None:
    (Path(os.environ["PYTHONPATH"]) / "slow_teacher.py").write_text(SLOW_TEACHER)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_blocks(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    """Until so many blocks are finished, or the process is."""
    while process.poll() is None and len(list((out / ".work").glob("*/block-*"))) < count:
        time.sleep(0.005)


@pytest.mark.usefixtures("slow_teacher")
def test_R10_killed_at_random_moments_the_store_is_the_same(photos, tmp_path):
    subprocess.run(command(photos, tmp_path / "whole", 0), check=True, capture_output=True)
    draw = random.Random(SEED)
    print(f"seed {SEED}, {KILLS} kills")
    out, cut_short = tmp_path / "cut", 0
    for number in range(KILLS):
        process = subprocess.Popen(
            command(photos, out, number % 3), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_for_blocks(process, out, draw.randrange(BLOCKS))
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        _, text = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), text.decode()
        cut_short += process.returncode != 0
        give_up = time.monotonic() + 20
        while group_lives(process.pid) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert not group_lives(process.pid), "a worker process outlived its killed parent"
        if (out / "reinforcement.json").exists():
            assert bytes_of(out) == bytes_of(tmp_path / "whole")
            subprocess.run(["rm", "-r", str(out)], check=True)
    assert cut_short >= KILLS // 2, "too few runs were cut short to prove anything"
    done = subprocess.run(command(photos, out, 1), check=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


@pytest.mark.usefixtures("slow_teacher")
def test_interrupted_with_its_workers_it_says_so_in_one_line(photos, tmp_path):
    process = subprocess.Popen(
        command(photos, tmp_path / "cut", 2), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for_blocks(process, tmp_path / "cut", 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, text = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in text
    assert text.endswith(b"\nbuttress reinforce: interrupted; run the same command again to go on\n")


@pytest.mark.usefixtures("colour_teacher")
def test_reinforce_with_a_numpy_teacher_does_not_import_torch(photos, tmp_path):
    words = (
        f"reinforce --source folder:{photos} --teacher python:colour_teacher:look --k 2 --workers 0 --out {tmp_path}/p"
    )
    script = (
        "import sys; from buttress.cli import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

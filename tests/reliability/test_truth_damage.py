"""The plane of truth, damaged: never a wrong number, always our error, and verification sees it (R3, R4)."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest

from buttress.errors import StoreError
from buttress.store.card import Card
from buttress.store.card_file import read_card
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.store.verify import check_integrity
from store.small_store import Plan

PARTS = ["part-00000-v0000", "part-00000-v0001"]


@pytest.fixture
def stored(tmp_path):
    plan = Plan(3, 2, k=1, classes=4, truth=True)
    return plan.write(tmp_path / "photos+", (), (1,)), plan


def read_truth(folder: Path, card: Card, plan: Plan) -> None:
    """Read all the truth, with what tells where there is one, and compare it with an undamaged reading."""
    reinforcement = Reinforcement(folder, card)
    for view in range(plan.views):
        truth = reinforcement.truth(np.arange(plan.rows), view)
        assert plan.truth_VN is not None
        expected = np.where(
            plan.hard_labels < 0, np.nan, np.float32(10) ** (-6 * (255 - plan.truth_VN[view] / 1) / 254)
        )
        np.testing.assert_allclose(truth, expected, rtol=1e-5, err_msg="wrong truth without an error")


def span_of_truth(path: Path) -> tuple[int, int]:
    """First byte and end of the tensor in the file: bytes are laid out by name, and truth is the last."""
    size = path.stat().st_size
    return size - 3, size


@pytest.mark.parametrize("name", PARTS)
def test_R3_every_flipped_bit_of_truth_and_header_is_an_error_that_names_the_place(stored, name):
    folder, plan = stored
    card, path = read_card(folder), folder / f"{name}.safetensors"
    read_truth(folder, card, plan)
    start, stop = span_of_truth(path)
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    with path.open("r+b", buffering=0) as file:
        for at in [*range(header), *range(start, stop)]:
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([data[at] ^ 1 << bit]), at)
                with pytest.raises(StoreError, match=name) as caught:
                    read_truth(folder, card, plan)
                if at >= start:
                    assert f"truth of view {int(name[-4:])}, rows 0-2: its checksum does not fit" in str(caught.value)
                    assert not check_integrity(folder).whole
            os.pwrite(file.fileno(), data[at : at + 1], at)
    assert check_integrity(folder).whole


@pytest.mark.parametrize("name", PARTS)
def test_R4_a_part_with_truth_that_is_cut_or_longer_is_refused(stored, name):
    folder, plan = stored
    card, path = read_card(folder), folder / f"{name}.safetensors"
    data = path.read_bytes()
    for cut in [*(data[:length] for length in range(len(data))), data + b"\0", data + b"junk" * 100]:
        path.unlink()
        path.write_bytes(cut)
        with pytest.raises(StoreError, match=name):
            read_truth(folder, card, plan)
    assert not check_integrity(folder).whole


def test_R2_swapped_planes_of_truth_are_refused(tmp_path):
    plan = Plan(3, 2, k=1, classes=4, truth=True)
    folder = plan.write(tmp_path / "photos+")
    path = folder / "part-00000-v0000.safetensors"
    data = path.read_bytes()
    assert plan.truth_VN is not None
    assert data[-6:] == plan.truth_VN.tobytes()
    path.write_bytes(data[:-6] + data[-3:] + data[-6:-3])
    with pytest.raises(StoreError, match="truth of view 0, rows 0-2: its checksum does not fit"):
        read_truth(folder, read_card(folder), plan)
    assert not check_integrity(folder).whole


def test_R8_a_folder_with_truth_reads_as_ever(tmp_path):
    golden = json.loads((Path(__file__).parents[1] / "golden" / "truth.json").read_text())
    for name, data in golden["files"].items():
        (tmp_path / name).write_bytes(base64.b64decode(data))
    reinforcement = open_reinforcement(tmp_path)
    assert check_integrity(tmp_path).whole
    truth_VN = np.stack([reinforcement.truth(np.arange(4), view) for view in range(3)])
    expected = np.array([[np.nan if value is None else value for value in row] for row in golden["truth"]])
    np.testing.assert_allclose(truth_VN, expected, rtol=1e-6)
    assert np.isnan(truth_VN).any()


def test_a_part_without_the_truth_that_the_card_lists_is_damaged(tmp_path):
    plan = Plan(3, 2, k=1, classes=4, truth=True)
    plan.truth_VN = None  # the digest of the settings, and the card, go on saying that it is stored
    folder = plan.write(tmp_path / "photos+")
    reinforcement = Reinforcement(folder, read_card(folder))
    with pytest.raises(StoreError, match=r"part-00000-v0000.*truth is missing"):
        reinforcement.truth(np.arange(3), 0)
    assert "truth is missing" in str(check_integrity(folder).problems[0])
    reinforcement.targets(np.arange(3), 0)  # what does not ask for it is not disturbed

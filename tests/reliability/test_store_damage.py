"""No damaged, mixed-up or hostile file of a reinforcement gives wrong numbers: our error, or it was not needed.

Every test that changes a file asks two things: does reading everything end in our error, and does verification see it?
"""

import base64
import contextlib
import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.errors import StoreError
from buttress.files import json_bytes
from buttress.store.card import Card, json_digest
from buttress.store.card_file import CARD_NAME, read_card
from buttress.store.codec import TopKLog8, top_k
from buttress.store.part import read_part_info
from buttress.store.probes import PROBES_NAME
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.store.rows import INDEX_NAME
from buttress.store.tensors import map_tensors
from buttress.store.verify import check_integrity
from store.small_store import Plan

SEED = 20_240_229
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "records.json").read_text())


def small(folder: Path) -> Plan:
    """Two row blocks, two parts each: 5 kB in all."""
    plan = Plan(4, 3, k=2, classes=5, bad=(3,))
    plan.write(folder, (2,), (2,))
    return plan


def read_everything(reinforcement: Reinforcement, plan: Plan) -> None:
    """Read all that a training could, and compare it with what was written."""
    assert reinforcement.rows_of(plan.id_hashes).tolist() == list(range(plan.rows))
    for view in range(plan.views):
        records = reinforcement.records(np.arange(plan.rows), view)
        assert (records == plan.labels_VNS[view]).all(), "wrong labels without an error"
    assert (reinforcement.hard_labels == plan.hard_labels).all(), "wrong hard labels without an error"
    assert (reinforcement.content_hashes == plan.content_hashes).all(), "wrong content hashes without an error"
    reinforcement.probes()


def read_part(reinforcement: Reinforcement, name: str, plan: Plan) -> None:
    """Read all of one part, and compare it with what was written."""
    entry = next(entry for entry in reinforcement.card.parts if entry.name == name)
    part, rows = reinforcement.part(entry), slice(*entry.rows)
    for view in range(*entry.views):
        assert (part.plane(view, plan.codec.stride) == plan.labels_VNS[view, rows]).all(), (
            "wrong labels without an error"
        )
    if entry.views[0] == 0:
        for column in ("id_hashes", "hard_labels", "content_hashes"):
            assert (part.column(column) == getattr(plan, column)[rows]).all(), f"wrong {column} without an error"


def read_file(folder: Path, card: Card, name: str, plan: Plan) -> None:
    """Read what the file `name` is for."""
    reinforcement = Reinforcement(folder, card)
    if name == CARD_NAME:
        read_card(folder)
    elif name == INDEX_NAME:
        assert reinforcement.rows_of(plan.id_hashes).tolist() == list(range(plan.rows))
    elif name == PROBES_NAME:
        reinforcement.probes()
    else:
        read_part(reinforcement, name.split(".")[0], plan)


def refused(folder: Path, plan: Plan) -> str:
    """The error that reading everything gives; empty if it gives none (then all numbers were right)."""
    try:
        read_everything(open_reinforcement(folder), plan)
    except StoreError as error:
        return str(error)
    return ""


def is_found(folder: Path) -> bool:
    """Whether verification sees that something is wrong."""
    try:
        return not check_integrity(folder).whole
    except StoreError:
        return True


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    folder = tmp_path_factory.mktemp("damage") / "photos+"
    return folder, small(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """Two parts: small enough to try every bit and every length."""
    plan = Plan(2, 2, k=1, classes=3)
    return plan.write(tmp_path_factory.mktemp("tiny") / "photos+", (), (1,)), plan


@pytest.fixture
def changed(stored):
    """The store, put back as it was afterwards."""
    yield from put_back(*stored)


@pytest.fixture
def changed_tiny(tiny):
    """The tiny store, put back as it was afterwards."""
    yield from put_back(*tiny)


def put_back(folder: Path, plan: Plan) -> Iterator[tuple[Path, Plan]]:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    yield folder, plan
    for path, data in before.items():
        path.write_bytes(data)
    for path in folder.iterdir():
        if path not in before:
            path.unlink()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir())


def test_R1_labels_of_any_size_read_back_equal(tmp_path_factory):
    @settings(max_examples=20, deadline=None)
    @given(
        rows=st.integers(1, 12),
        views=st.integers(1, 6),
        k=st.integers(1, 4),
        classes=st.integers(2, 300),
        seed=st.integers(0, 2**32 - 1),
        data=st.data(),
    )
    def check(rows, views, k, classes, seed, data):
        row_cuts = data.draw(st.sets(st.integers(1, max(1, rows - 1)), max_size=3)) if rows > 1 else set()
        view_cuts = data.draw(st.sets(st.integers(1, max(1, views - 1)), max_size=3)) if views > 1 else set()
        bad = data.draw(st.sets(st.integers(0, rows - 1), max_size=2))
        plan = Plan(rows, views, k=min(k, classes), classes=classes, bad=tuple(sorted(bad)), seed=seed)
        plan.names = tuple(f"Klasse \u00fc\u4e2d {i}" for i in range(classes))
        plan.digest = plan.card_digest()
        folder = plan.write(tmp_path_factory.mktemp("r1"), tuple(sorted(row_cuts)), tuple(sorted(view_cuts)))
        reinforcement = open_reinforcement(folder)
        read_everything(reinforcement, plan)
        assert reinforcement.classes == plan.names
        assert reinforcement.absent_rows.tolist() == sorted(bad)
        assert check_integrity(folder).whole

    check()


def test_R2_any_permutation_filter_or_extension_gets_its_own_records(stored):
    folder, plan = stored
    reinforcement = open_reinforcement(folder)

    @settings(max_examples=60, deadline=None)
    @given(st.permutations(range(6)), st.integers(0, 6))
    def check(order, length):
        picked = np.array(order[:length], np.int64)
        hashes = np.concatenate([plan.id_hashes, np.array([5, 2**63], np.uint64)])[picked]
        rows = reinforcement.rows_of(hashes)
        assert rows.tolist() == [row if row < 4 else -1 for row in picked]
        known = rows >= 0
        np.testing.assert_array_equal(reinforcement.records(rows[known], 2), plan.labels_VNS[2, picked[known]])

    check()


def test_R2_swapped_planes_are_refused(changed):
    folder, plan = changed
    path = folder / "part-00000-v0000.safetensors"
    data = bytearray(path.read_bytes())
    size = 2 * plan.codec.stride
    data[-2 * size :] = data[-size:] + data[-2 * size : -size]
    path.write_bytes(data)
    assert "part-00000-v0000.safetensors: plane of view 0, rows 0-1: its checksum does not fit" in refused(folder, plan)
    assert is_found(folder)


@pytest.mark.parametrize("endings", [("safetensors",), ("json",), ("safetensors", "json")], ids=str)
@pytest.mark.parametrize("names", [("part-00000-v0000", "part-00001-v0000"), ("part-00000-v0002", "part-00001-v0002")])
def test_R2_swapped_parts_are_refused(changed, endings, names):
    folder, plan = changed
    one, other = names
    for ending in endings:
        a, b = folder / f"{one}.{ending}", folder / f"{other}.{ending}"
        first, second = a.read_bytes(), b.read_bytes()
        a.write_bytes(second)
        b.write_bytes(first)
    assert one in refused(folder, plan)
    assert is_found(folder)


def test_R2_swapped_id_columns_are_refused_even_under_a_header_that_fits(changed):
    folder, plan = changed
    paths = [folder / f"part-0000{block}-v0000.safetensors" for block in (0, 1)]
    spans = []
    for path in paths:
        data = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little") + 16  # content hashes, then id hashes of two rows
        spans.append((path, data, start, bytes(data[start : start + 16])))
    for (path, data, start, _), (*_, ids) in zip(spans, reversed(spans), strict=True):
        data[start : start + 16] = ids
        path.write_bytes(data)
    assert "id_hashes of view 0, rows 0-1: its checksum does not fit" in refused(folder, plan)
    assert is_found(folder)


def test_R2_parts_of_another_labelling_are_refused(changed, tmp_path):
    folder, plan = changed
    other = Plan(4, 3, k=2, classes=5, bad=(3,), seed=1)
    other.write(tmp_path / "other", (2,), (2,))
    for ending in ("safetensors", "json"):
        name = f"part-00001-v0002.{ending}"
        (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    assert "part-00001-v0002.json: file: not the JSON that the card names" in refused(folder, plan)
    assert is_found(folder)


def put(path: Path, data: bytes) -> None:
    """Make the file anew: some file systems write a file to the disk at once when it is emptied and filled again."""
    path.unlink()
    path.write_bytes(data)


def flips(path: Path) -> Iterator[tuple[int, int]]:
    """Flip every bit of a file, one after another."""
    data = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for at, byte in enumerate(data):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), at)
                yield at, bit
            os.pwrite(file.fileno(), bytes([byte]), at)


FILES = [
    "part-00000-v0000.safetensors",
    "part-00000-v0000.json",
    "part-00000-v0001.safetensors",
    "part-00000-v0001.json",
    CARD_NAME,
    PROBES_NAME,
]


@pytest.mark.parametrize("name", FILES)
def test_R3_every_flipped_bit_is_an_error_that_names_the_file(changed_tiny, name):
    folder, plan = changed_tiny
    card, stem = read_card(folder), name.split(".")[0]
    for at, bit in flips(folder / name):
        with pytest.raises(StoreError) as caught:
            read_file(folder, card, name, plan)
        assert stem in str(caught.value), f"bit {bit} of byte {at}: {caught.value}"
    assert refused(folder, plan) == ""


def test_R3_no_flipped_bit_of_the_index_gives_another_row(changed_tiny):
    folder, plan = changed_tiny
    card = read_card(folder)
    for _ in flips(folder / INDEX_NAME):
        read_file(folder, card, INDEX_NAME, plan)


@pytest.mark.parametrize("name", [*FILES, INDEX_NAME])
def test_R3_verification_finds_flipped_bits_in_every_file(changed_tiny, name):
    folder, _ = changed_tiny
    size = 8 * (folder / name).stat().st_size
    chosen = set(random.Random(SEED).sample(range(size), 80)) | set(range(size - 64, size))
    for at, bit in flips(folder / name):
        if 8 * at + bit in chosen:
            assert is_found(folder), f"bit {bit} of byte {at}"
    assert not is_found(folder)


@pytest.mark.parametrize("name", [*FILES, INDEX_NAME])
def test_R4_a_file_cut_at_any_length_or_with_junk_at_its_end_is_refused(changed_tiny, name):
    folder, plan = changed_tiny
    card, path = read_card(folder), folder / name
    data = path.read_bytes()
    for number, cut in enumerate((*(data[:length] for length in range(len(data))), *(data + junk for junk in JUNK))):
        put(path, cut)
        if name == INDEX_NAME:
            read_file(folder, card, name, plan)
        else:
            with pytest.raises(StoreError, match=name.split(".")[0]):
                read_file(folder, card, name, plan)
        if number % 11 == 0 or number >= len(data):
            assert is_found(folder), f"{len(cut)} bytes"


JUNK = [b"\0", b" ", b"\n", b"junk" * 1000]


def test_R5_a_hostile_part_costs_no_memory_and_no_time(changed):
    """Numbers far beyond the file's size are refused before anything of that size is made."""
    folder, plan = changed
    path = folder / "part-00000-v0000.json"
    good = json.loads(path.read_text())
    changes: list[dict[str, Any]] = [
        {"length": 2**62},
        {"rows": [0, 2**32 - 1]},
        {"views": [0, 2**32 - 1]},
        {"views": [0, 2**70]},
        {"rows": [0, -1]},
        {"crc32": {"labels": [2**32]}},
        {"crc32": {"labels": [-1, True]}},
        {"crc32": {}},
        {"crc32": []},
        {"settings": "../.."},
        {"version": 2},
        {"more": 1},
    ]
    for change in changes:
        path.write_text(json.dumps({**good, **change}))
        assert "part-00000-v0000.json" in refused(folder, plan)
        reseal(folder)
        assert "part-00000-v0000" in refused(folder, plan)


def test_R5_a_pipe_in_the_place_of_a_file_does_not_hang_the_reader(changed):
    folder, plan = changed
    path = folder / "part-00000-v0000.safetensors"
    path.unlink()
    os.mkfifo(path)
    try:
        assert "part-00000-v0000.safetensors" in refused(folder, plan)
    finally:
        path.unlink()


def reseal(folder: Path) -> None:
    """Make the card's digests fit again, as one who means harm would."""
    path = folder / CARD_NAME
    card = json.loads(path.read_text())
    for part in card["parts"]:
        part["sha256"] = hashlib.sha256((folder / f"{part['name']}.json").read_bytes()).hexdigest()
    del card["digest"]
    path.write_bytes(json_bytes({**card, "digest": json_digest(card)}))


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or put in."""
    result = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 5))):
        at = generator.randrange(len(result) + 1)
        length = generator.choice((1, 1, 4, 40))
        kind = generator.randrange(5)
        if kind == 0:
            result[at : at + length] = generator.randbytes(length)
        elif kind == 1:
            del result[at : at + length]
        elif kind == 2:
            result[at:at] = result[at : at + length]
        elif kind == 3:
            result[at : at + 1] = generator.choice(
                (b"9999999999", b"-", b"[", b"{", b'"', b"null", b"1e999", b"\xff", b"\0")
            )
        else:
            result[at : at + 8] = generator.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
    return bytes(result)


def test_R6_ten_thousand_mutated_files_give_nothing_but_our_error(changed_tiny):
    folder, plan = changed_tiny
    generator = random.Random(SEED)
    card = read_card(folder)
    originals = [(path, path.read_bytes()) for path in files(folder)]
    for number in range(10_000):
        path, data = originals[number % len(originals)]
        put(path, mutated(data, generator))
        _only_our_error(read_file, folder, card, path.name, plan)
        if path.suffix == ".safetensors":
            _only_our_error(map_tensors, path)
        elif path.name.startswith("part-"):
            _only_our_error(read_part_info, folder, path.stem)
        put(path, data)


def test_R6_mutated_cards_with_a_digest_that_fits_give_nothing_but_our_error(changed):
    folder, plan = changed
    generator = random.Random(SEED)
    path = folder / CARD_NAME
    good = json.loads(path.read_text())
    del good["digest"]
    for _ in range(1_000):
        value = json.loads(json.dumps(good))
        _mutate_value(value, generator)
        put(path, json_bytes({**value, "digest": json_digest(value)}))
        try:
            reinforcement = open_reinforcement(folder)
            reinforcement.rows_of(plan.id_hashes)
            for view in range(min(reinforcement.views, 5)):
                reinforcement.targets(np.array([0]), view)
        except StoreError:
            pass


def _only_our_error(function, *arguments):
    with contextlib.suppress(StoreError):
        function(*arguments)


def _mutate_value(value, generator: random.Random) -> None:
    """Change one thing somewhere in a tree of JSON."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        if not keys:
            return
        key = generator.choice(keys)
        if isinstance(value[key], dict | list) and generator.random() < 0.8:
            value = value[key]
            continue
        new: Any = generator.choice(
            (None, True, -1, 0, 1, 2, 2**63, 1.5, "", "x", "../x", [], {}, [[]], [0, 1], {"a": 1}, "\u00fc")
        )
        value[key] = new
        return


def test_R8_a_folder_of_format_1_reads_as_ever(tmp_path):
    stored = GOLDEN["folder"]
    for name, data in stored["files"].items():
        (tmp_path / name).write_bytes(base64.b64decode(data))
    reinforcement = open_reinforcement(tmp_path)
    assert check_integrity(tmp_path).whole
    assert reinforcement.id_hashes.tolist() == stored["id_hashes"]
    records = np.stack([reinforcement.records(np.arange(3), view) for view in range(2)])
    assert records.tobytes().hex() == stored["labels"]
    assert reinforcement.absent_rows.tolist() == [1]


def test_R9_equal_inputs_give_equal_bytes_in_whatever_order_the_parts_are_written(tmp_path):
    plan = Plan(7, 4)
    corners = [(block, rows, views) for block, rows in enumerate([(0, 3), (3, 7)]) for views in [(0, 1), (1, 4)]]
    generator = random.Random(SEED)
    folders = []
    for trial in range(4):
        folder = tmp_path / str(trial)
        folder.mkdir()
        order = generator.sample(corners, len(corners))
        entries = {corner: plan.write_part(folder, *corner) for corner in order}
        plan.finish(folder, [entries[corner] for corner in corners])
        folders.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert all(folder == folders[0] for folder in folders)


def test_R9_a_record_does_not_depend_on_the_batch_it_was_made_in():
    codec = TopKLog8(10, 1000)
    probabilities = np.random.default_rng(SEED).dirichlet(np.full(1000, 0.05), 50).astype(np.float32)
    whole = codec.encode(*top_k(probabilities, 10))
    for size in (1, 7, 32):
        pieces = [codec.encode(*top_k(probabilities[i : i + size], 10)) for i in range(0, 50, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)

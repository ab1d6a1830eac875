"""A reinforcement of ImageNet with 400 views each, 512 million of them, as a sparse file: what opening it takes.

Called by `python -m benchmarks.store`. Ids, hard labels, content hashes and the index are real; of the labels only the
first view's checksums are, for no other is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from buttress.files import json_bytes, write_atomic
from buttress.store.card import Card, PartEntry, Probes, RendererId, SourceInfo, settings_digest, standard_fields
from buttress.store.part import COLUMNS, MAX_ROWS, PartInfo, part_name, plane_crc
from buttress.store.writer import PartColumns, write_card, write_index, write_probes
from buttress.views.presets import preset

ROWS, VIEWS, K, CLASSES, STRIDE = 1_281_167, 400, 10, 1000, 23
ROUNDS = 7
MEASURE = """
import json, resource, sys, time
import numpy as np
from pathlib import Path
from buttress.store.reader import open_reinforcement

def megabytes():
    with open("/proc/self/statm") as file:
        fields = file.read().split()
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize() / 1e6  # resident, without mapped files

def ms(work):
    start = time.process_time()
    result = work()
    return result, (time.process_time() - start) * 1e3

before = megabytes()
store, opened = ms(lambda: open_reinforcement(Path(sys.argv[1])))
hashes = np.array([int(sys.argv[2])], np.uint64)
rows, first = ms(lambda: store.rows_of(hashes))
_, read = ms(lambda: store.records(rows, 0))
_, later = ms(lambda: [store.rows_of(hashes) for _ in range(100)])
assert rows.tolist() == [int(sys.argv[3])], rows
print(json.dumps({"open_ms": opened, "first_lookup_ms": first, "first_plane_ms": read, "lookup_ms": later / 100,
                  "open_mb": megabytes() - before}))
"""


def card_settings() -> dict[str, Any]:
    """Those of the card that decide the labels."""
    return {
        "seed": 0,
        "k": K,
        "classes": tuple(f"class {i}" for i in range(CLASSES)),
        "policy": preset("randaug"),
        "renderer": RendererId(id="opencv-linear", version=1),
        "teachers": (),
        "labelling": {},
    }


def write(folder: Path) -> np.ndarray:
    """Make it; returns the id hashes `[N]`."""
    settings = card_settings()
    digest = settings_digest(**settings)
    hashes = np.arange(1, ROWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    parts = [
        _write_part(folder, block, hashes[first : first + MAX_ROWS], first, digest)
        for block, first in enumerate(range(0, ROWS, MAX_ROWS))
    ]
    write_index(folder, hashes)
    card = Card(
        **settings,
        views=VIEWS,
        probes=Probes(sha256=write_probes(folder, np.zeros((16, 64, 64, 3), np.uint8)), versions={}),
        source=SourceInfo(uri="made", count=ROWS, fingerprint="", rows=ROWS),
        fields=standard_fields(K, CLASSES),
        versions={},
        skipped=(),
        parts=tuple(parts),
    )
    write_card(folder, card)
    return hashes


def _write_part(folder: Path, block: int, hashes: np.ndarray, first: int, digest: str) -> PartEntry:
    rows, name = len(hashes), part_name(block, 0)
    columns = PartColumns(id_hashes=hashes, hard_labels=np.zeros(rows, np.int32), content_hashes=hashes).arrays()
    ordered = sorted(columns.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": {"part": f"{name} {digest}"}}
    offset = 0
    for field, array in ordered:
        kind = {8: "U64", 4: "I32"}[COLUMNS[field].itemsize]
        header[field] = {"dtype": kind, "shape": [rows], "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    labels = VIEWS * rows * STRIDE
    header["labels"] = {"dtype": "U8", "shape": [VIEWS, rows, STRIDE], "data_offsets": [offset, offset + labels]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    with (folder / f"{name}.safetensors").open("wb") as file:
        file.write(head + b"".join(array.tobytes() for _, array in ordered))
        file.truncate(len(head) + offset + labels)
    plane = np.zeros((rows, STRIDE), np.uint8)
    sums = {field: (plane_crc(field, first, 0, array),) for field, array in columns.items()}
    info = PartInfo(
        rows=(first, first + rows),
        views=(0, VIEWS),
        settings=digest,
        length=len(head) + offset + labels,
        header_sha256=hashlib.sha256(head).hexdigest(),
        crc32={**sums, "labels": (plane_crc("labels", first, 0, plane), *[0] * (VIEWS - 1))},
    )
    told = json_bytes(info.to_json())
    write_atomic(folder / f"{name}.json", told)
    return PartEntry(name=name, rows=info.rows, views=info.views, sha256=hashlib.sha256(told).hexdigest())


def measure(folder: Path) -> dict[str, list[float]]:
    """Milliseconds of CPU time and megabytes of memory of its own, each time in a fresh process."""
    hashes, found = write(folder), dict[str, list[float]]()
    for number in range(ROUNDS):
        row = 1000 * number + 17
        words = [sys.executable, "-c", MEASURE, str(folder), str(int(hashes[row])), str(row)]
        told = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ).stdout
        for name, value in json.loads(told).items():
            found.setdefault(name, []).append(value)
    return found

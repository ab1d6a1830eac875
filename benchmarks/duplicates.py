"""Why `buttress inspect` takes two files for one picture just where it does: misses and false alarms of its two bounds.

    python -m benchmarks.duplicates            # prints; --record appends to docs/results/duplicates.jsonl

False alarms: all pairs of 2,338 photos, which are known to be distinct (Imagenette, an ImageNet sample, COCO). Misses:
300 of them compressed, shrunk, brightened and cropped. And how many pairs are named in CIFAR-100's 20,000 training
images, which do hold the same pictures more than once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from benchmarks import record
from benchmarks.trials import data_folder
from buttress.metrics.duplicates import ALIKE, BITS, close_pairs, picture_hash, same_pictures
from buttress.sources import Sample, decode, open_source

LOOSEST = 12
CHANGED = 300


def photos() -> list[np.ndarray]:
    """The pixels of the 2,338 photos."""
    places = ("photos/imagenette224/*/*/*", "photos/imagenet1k_sample/*/*/*", "coco_mini/*/images/*")
    files = [path for place in places for path in sorted(data_folder().glob(place))]
    return [decode(path.read_bytes()) for path in files]


def changed(pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same picture in other files."""
    height, width = pixels.shape[:2]
    coded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    yield "jpeg quality 50", np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB))
    yield "half the size", cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    yield "15 % brighter", np.clip(pixels * 1.15, 0, 255).astype(np.uint8)
    for share in (0.02, 0.05):
        cut = (round(height * share), round(width * share))
        yield f"{share:.0%} cropped at each side", pixels[cut[0] : height - cut[0], cut[1] : width - cut[1]]


def by_bits(hashes: np.ndarray) -> dict[str, int]:
    """Pairs within each number of bits."""
    found = [int(hashes[a] ^ hashes[b]).bit_count() for a, b in close_pairs(hashes, LOOSEST)]
    return {str(bits): sum(each <= bits for each in found) for bits in range(0, LOOSEST + 1, 2)}


class Pair:
    """Two pictures, of any size, as a source."""

    uri, ids, classes = "pair", ("first", "second"), None
    labels = np.full(2, -1, np.int32)

    def __init__(self, *pictures: np.ndarray) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], self.pictures[index], None)


def found_again(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(same_pictures(Pair(first, second), np.arange(2)))


def measure() -> dict[str, Any]:
    distinct = photos()
    hashes = np.array([picture_hash(pixels) for pixels in distinct], np.uint64)
    chosen = np.random.default_rng(0).choice(len(distinct), CHANGED, replace=False).tolist()
    found: dict[str, list[bool]] = {}
    for index in chosen:
        for name, pixels in changed(distinct[index]):
            found.setdefault(name, []).append(found_again(distinct[index], pixels))
    cifar = open_source(f"parquet:{data_folder()}/cifar100/train.parquet?label=fine_label")
    cifar_hashes = np.array([picture_hash(decode(cifar[place].data)) for place in range(len(cifar))], np.uint64)
    return {
        "bounds": {"bits": BITS, "correlation": ALIKE},
        "photos": len(distinct),
        "distinct_pairs_by_bits": by_bits(hashes),
        "found_again": {name: float(np.mean(hits)) for name, hits in found.items()},
        "cifar100_pairs_by_bits": by_bits(cifar_hashes),
        "cifar100_pairs": len(same_pictures(cifar, np.arange(len(cifar)))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--record", action="store_true", help="append to docs/results/duplicates.jsonl")
    arguments = parser.parse_args()
    line = measure()
    print(json.dumps(line, indent=1))
    if arguments.record:
        record("duplicates", line, "benchmarks.duplicates")


if __name__ == "__main__":
    main()

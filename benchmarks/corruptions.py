"""What a corruption costs: processor milliseconds an image at 224 pixels, on one thread.

    python -m benchmarks.corruptions            # prints; --record appends to docs/results/corruptions.jsonl
    python -m benchmarks.corruptions page       # puts the table of the last line into docs/evaluate.md

Eight photos of Imagenette; the median of five rounds over all photos and severities.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.trials import data_folder, lines, markdown, put_table
from buttress.metrics.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from buttress.sources import open_source
from buttress.sources.decode import decode

NAME, MODULE = "corruptions", "benchmarks.corruptions"
PAGE = Path(__file__).parents[1] / "docs" / "evaluate.md"
MARK = "<!-- made by `python -m benchmarks.corruptions page` -->"
SIDE, PHOTOS, ROUNDS = 224, 8, 5


def photos() -> list[NDArray[np.uint8]]:
    source = open_source(f"folder:{data_folder()}/photos/imagenette224/val")
    chosen = np.linspace(0, len(source) - 1, PHOTOS).astype(int).tolist()
    return [np.asarray(cv2.resize(decode(source[place].data), (SIDE, SIDE)), np.uint8) for place in chosen]


def milliseconds(name: str, images: list[NDArray[np.uint8]]) -> float:
    """Of one image, severities taken alike."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for severity in SEVERITIES:
            for number, image in enumerate(images):
                corrupt(image, name, severity, seed=0, id_hash=number)
        rounds.append(time.process_time() - start)
    return 1000 * statistics.median(rounds) / len(SEVERITIES) / len(images)


def table() -> str:
    """The last line, the slowest first."""
    told = lines(NAME)[-1]["milliseconds"]
    rows = [[name.replace("_", " "), f"{told[name]:.1f}"] for name in sorted(told, key=lambda name: -told[name])]
    return markdown(["corruption", "ms an image"], [*rows, ["**mean**", f"{statistics.mean(told.values()):.1f}"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["time", "page"], default="time")
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    if asked.what == "page":
        put_table(PAGE, MARK, table())
        return
    cv2.setNumThreads(1)
    images = photos()
    told = {name: round(milliseconds(name, images), 2) for name in CORRUPTIONS}
    for name, spent in told.items():
        print(f"{name:18} {spent:6.1f} ms")
    print(f"{'mean':18} {statistics.mean(told.values()):6.1f} ms")
    if asked.record:
        record(NAME, {"side": SIDE, "photos": PHOTOS, "rounds": ROUNDS, "milliseconds": told}, MODULE)


if __name__ == "__main__":
    main()

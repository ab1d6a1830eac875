"""What the shipped recipes reach on images that they were not trained on, and how long they take.

    python -m benchmarks.recipes               # prints; --record appends to docs/results/recipes.jsonl

`digits` has no test set of its own. So each recipe is run with its very settings, three seeds, on 1,197 of the 1,797
digits, and its last epoch is scored on the other 600, which are drawn by the hash of their ids. `minutes` is the
processor time of one training on all 1,797, worked out from the steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record
from buttress.cli import recipe_words, settings
from buttress.commands.train import train
from buttress.recipes.shipped import shipped_names, shipped_path
from buttress.signature import arguments_of
from buttress.sources import open_source
from buttress.sources.splits import split

TRAINED, HELD_BACK = 1197, 600
SEEDS = (0, 1, 2)


def flags_of(name: str) -> dict[str, Any]:
    """The recipe as the keyword arguments of `train`."""
    words = recipe_words(shipped_path(name), arguments_of(train))
    given = settings(train, [*words, "--out", "unused"])
    assert given is not None
    return given


def one_training(flags: dict[str, Any], seed: int) -> dict[str, float]:
    """Top-1 on the digits that were held back, and the processor time, seconds."""
    from buttress.metrics.score import score
    from buttress.training.data import TrainingData
    from buttress.training.settings import TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import read_policy

    fields = TrainingSettings.__dataclass_fields__
    chosen = TrainingSettings(**{**{key: flags[key] for key in fields if key in flags}, "seed": seed})
    trained, held_back = split(open_source(flags["data"]), (TRAINED, HELD_BACK))
    data = TrainingData(source=trained, policy=read_policy(flags["policy"]))
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = train_on_source(data, model=flags["model"], out=Path(folder) / "run", settings=chosen, size=flags["size"])
        seconds = time.process_time() - start
        top1 = score(run.load_model(), held_back).figures["top1"]["value"]
    assert top1 is not None
    return {"seed": seed, "top1": float(top1), "cpu_seconds": seconds}


def figures(name: str) -> dict[str, Any]:
    """The recipe's line."""
    flags = flags_of(name)
    runs = [one_training(flags, seed) for seed in SEEDS]
    tops = [run["top1"] for run in runs]
    minutes = statistics.mean(run["cpu_seconds"] for run in runs) * (TRAINED + HELD_BACK) / TRAINED / 60
    return {
        "recipe": name,
        "flags": {key: str(value) for key, value in flags.items() if key != "out"},
        "trained": TRAINED,
        "held_back": HELD_BACK,
        "runs": runs,
        "top1": {"mean": statistics.mean(tops), "sd": statistics.stdev(tops)},
        "minutes": minutes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes; default: all that train on digits")
    parser.add_argument("--record", action="store_true", help="append to docs/results/recipes.jsonl")
    arguments = parser.parse_args()
    for name in arguments.names or shipped_names():
        line = figures(name)
        print(json.dumps(line, indent=1))
        if arguments.record:
            record("recipes", line, "benchmarks.recipes")


if __name__ == "__main__":
    main()

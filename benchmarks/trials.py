"""What comparisons of trainings share: trials that are run once each, their figures, and tables with paired intervals.

Shapes: N test images, S seeds, R resamples.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks import RESULTS, record
from buttress.memory import keep_freed_memory

RESAMPLES = 2_000
Line = dict[str, Any]


class Trial(Protocol):
    """One training, with a name of its own."""

    @property
    def name(self) -> str: ...


def data_folder() -> Path:
    """The real data: `BUTTRESS_DATA`, default `../shared/data`."""
    return Path(os.environ.get("BUTTRESS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def split_classes(work: Path, column: str, parts: Mapping[str, range], seed: int) -> None:
    """Write parts of CIFAR-100's training images as WORK/PART.parquet: of each class a range of its shuffled images."""
    import pyarrow.parquet as pq

    table = pq.read_table(data_folder() / "cifar100" / "train.parquet")
    rng, labels = np.random.default_rng(seed), np.array(table[column])
    shuffled = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    work.mkdir(parents=True, exist_ok=True)
    for part, taken in parts.items():
        file = work / f"{part}.parquet"
        if not file.exists():
            chosen = np.concatenate([indices[taken.start : taken.stop] for indices in shuffled])
            pq.write_table(table.take(np.sort(chosen)), file)


def lines(name: str) -> list[Line]:
    """What docs/results/NAME.jsonl holds."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_trials(
    name: str,
    trials: Sequence[Trial],
    train: Callable[[Any, Path], Line],
    work: Path,
    processes: int,
    module: str,
    *,
    again: bool = False,
) -> None:
    """Run what docs/results/NAME.jsonl lacks, each in a process of its own, and write it down as it ends.

    Args:
        again: also what is there; a run that is still in `work` is only scored. The last line of a name counts.
    """
    there = set() if again else {line.get("name") for line in lines(name)}
    left = [trial for trial in trials if trial.name not in there]
    print(f"{len(left)} of {len(trials)} trials to do", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=1) as pool:
        for result in pool.imap_unordered(_Job(train, work), left):
            record(name, result, module)
            score = result["top1"] if "top1" in result else result["held_back"]["top1"]
            print(f"{result['name']}: top-1 {score}, {result['cpu_seconds']} s", flush=True)


class _Job:
    def __init__(self, train: Callable[[Any, Path], Line], work: Path) -> None:
        self.train, self.work = train, work

    def __call__(self, trial: Trial) -> Line:
        keep_freed_memory()  # as commands do
        return {"name": trial.name, **self.train(trial, self.work)}


def figures_on(loaded: Any, held_uri: str, test_uri: str | None) -> Line:
    """Figures on the held-back images and, with the temperature fitted there, on the test images.

    Before this was the library's `best_temperature` the benchmarks had a search of their own, which ended at 4.

    `right`: which of the N test images the model got right, as packed bits in base64.
    """
    import torch

    from buttress.metrics.evaluate import figures_of
    from buttress.metrics.score import score
    from buttress.metrics.temperature import best_temperature
    from buttress.sources import open_source

    held = score(loaded, open_source(held_uri))
    values: Line = {"held_back": {key: held.figures[key]["value"] for key in ("top1", "nll", "ece")}}
    if test_uri is None:
        return values
    test = score(loaded, open_source(test_uri))
    temperature = best_temperature(torch.from_numpy(held.logits), torch.from_numpy(held.labels))
    if temperature is None:  # all right, or nothing learnt
        temperature = 1.0
    scaled = figures_of(test.logits / np.float32(temperature), test.labels)
    return {
        **values,
        **{key: test.figures[key]["value"] for key in ("top1", "nll", "ece")},
        "temperature": temperature,
        "nll_scaled": scaled["nll"]["value"],
        "ece_scaled": scaled["ece"]["value"],
        "right": base64.b64encode(np.packbits(test.logits.argmax(1) == test.labels).tobytes()).decode(),
    }


def right_of(line: Line, images: int = 10_000) -> NDArray[np.bool_]:
    """Which test images a trial got right, `[N]`."""
    packed = np.frombuffer(base64.b64decode(line["right"]), np.uint8)
    return np.unpackbits(packed, count=images).astype(bool)


@cache
def _resamples(seeds: int, images: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How often each of the resamples has each seed `[R, S]` and each image `[R, N]`; alike for all pairs of arms."""
    rng = np.random.default_rng(0)
    times_RS, weights_RN = np.empty((RESAMPLES, seeds), np.float32), np.empty((RESAMPLES, images), np.float32)
    for times_S, weights_N in zip(times_RS, weights_RN, strict=True):
        times_S[:] = np.bincount(rng.integers(seeds, size=seeds), minlength=seeds)
        weights_N[:] = rng.multinomial(images, np.full(images, 1 / images))
    return times_RS, weights_RN


def paired_interval(ours: Mapping[int, Line], theirs: Mapping[int, Line]) -> tuple[float, float, float]:
    """Difference of top-1 in points, with its 95 % interval over test images and seeds.

    Seed by seed and image by image; a bootstrap that draws seeds and images anew (percentiles of 2,000 resamples).
    With few seeds it is a rough interval, and wider than one over images alone.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    difference_SN = np.stack([right_of(ours[s]).astype(np.int8) - right_of(theirs[s]) for s in seeds])
    times_RS, weights_RN = _resamples(*difference_SN.shape)
    sums_RS = weights_RN @ difference_SN.T.astype(np.float32)  # whole numbers, all of them exact
    means = (sums_RS * times_RS).sum(axis=1, dtype=np.float64) / difference_SN.size
    low, high = np.quantile(means, (0.025, 0.975))
    return 100 * float(difference_SN.mean()), 100 * float(low), 100 * float(high)


def best_rate(tuned: Iterable[Line], rates: Sequence[float], what: str) -> float:
    """The rate of the least NLL on the held-back images; a program that lacks one ends here."""
    nll = {x["lr"]: x["held_back"]["nll"] for x in tuned}
    if missing := [f"{rate:g}" for rate in rates if rate not in nll]:
        sys.exit(f"{what}: no run at the rate {', '.join(missing)}; tune first")
    return float(min(nll, key=lambda rate: nll[rate]))


COMPARED = ("rate", "seeds", "top-1 %", "gain, points [95 %]", "NLL", "ECE %", "ECE % scaled")


def compared(runs: Mapping[int, Line], baseline: Mapping[int, Line]) -> list[str]:
    """The cells of `COMPARED`: final trials of one arm, by seed, against those of the baseline."""
    found = list(runs.values())
    gain = "" if runs == baseline else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*paired_interval(runs, baseline))
    top1, ece, ece_scaled = (spread((x[key] for x in found), 100) for key in ("top1", "ece", "ece_scaled"))
    nll = spread((x["nll"] for x in found), digits=2)
    return [f"{found[0]['lr']:g}", str(len(found)), top1, gain, nll, ece, ece_scaled]


def spread(values: Iterable[float], scale: float = 1.0, digits: int = 1) -> str:
    """Mean ± sample standard deviation; a single value alone."""
    scaled = [scale * value for value in values]
    mean = f"{statistics.mean(scaled):.{digits}f}"
    return mean if len(scaled) < 2 else f"{mean} ± {statistics.stdev(scaled):.{digits}f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(
        ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *("| " + " | ".join(row) + " |" for row in rows)]
    )


def put_table(page: Path, mark: str, table: str) -> None:
    """Replace what stands in `page` between `mark` and the next `<!-- end -->`."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(mark, 1)
    _, after = rest.split("<!-- end -->", 1)
    page.write_text(f"{before}{mark}\n{table}\n<!-- end -->{after}", encoding="utf-8")

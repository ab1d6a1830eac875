"""How long a pass takes: warm-up, many runs, the median and where nine in ten of them lie."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from buttress.metrics.intervals import Figure, figure
from buttress.terminal import Progress

WARM_UP, RUNS = 3, 10
LEAST_SECONDS, MOST_SECONDS = 0.5, 3.0  # of the runs of one measurement; the warm-up has as long again
MOST_RUNS = 200
SPREAD_RUNS = 3  # fewer have no percentiles worth the name


def seconds_of(
    run: Callable[[], Any],
    device: torch.device,
    *,
    bar: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, ...]:
    """Seconds of each of several runs after a warm-up.

    There are 10 runs at least and half a second of them, up to 200; where one takes long they end after 3 seconds,
    and so does the warm-up of 3 runs; of each there is one at least.

    Args:
        run: what is timed.
        device: whose work is waited for.
        bar: counts `WARM_UP + RUNS` units, however many runs there are.
        clock: the time in seconds, from any start.
    """

    def once() -> float:
        _wait(device)
        start = clock()
        run()
        _wait(device)
        return clock() - start

    warming, taken = [once()], list[float]()
    while len(warming) < WARM_UP and sum(warming) < MOST_SECONDS:
        warming.append(once())
    bar.advance(WARM_UP)
    while not _enough(taken):
        taken.append(once())
        bar.advance(len(taken) <= RUNS)
    bar.advance(max(RUNS - len(taken), 0))
    return tuple(taken)


def _enough(taken: list[float]) -> bool:
    count, spent = len(taken), sum(taken)
    return spent >= MOST_SECONDS or count >= MOST_RUNS or (count >= RUNS and spent >= LEAST_SECONDS)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_of(values: tuple[float, ...]) -> Figure:
    """The median of some runs; low and high are their 5th and 95th percentile, of 3 runs or more.

    There is no value where there is no run.
    """
    if len(values) < SPREAD_RUNS:
        return figure(float(np.median(values)) if values else None, len(values))
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    return {"value": middle, "count": len(values), "low": low, "high": high}

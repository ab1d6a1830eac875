"""Run blocks in this process or in a pool of worker processes; the result is the same, byte for byte."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path

from buttress.errors import LabellingError
from buttress.labelling.block import LabelJob, label_block
from buttress.labelling.plan import Block

_job: LabelJob | None = None


def run_blocks(blocks: Sequence[Block], job: LabelJob, workers: int) -> Iterator[tuple[Block, Path]]:
    """Label `blocks`, giving each with its file as it is done (in any order).

    Args:
        blocks: what to label.
        job: the settings.
        workers: 0 = in this process; otherwise that many processes.

    Raises:
        LabellingError: a worker process died.
    """
    if workers == 0 or len(blocks) <= 1:
        for block in blocks:
            yield block, label_block(block, job)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads can hang
    with ProcessPoolExecutor(min(workers, len(blocks)), context, _start_worker, (job,)) as pool:
        try:
            yield from _in_flight(blocks, pool, 2 * workers)
        except BrokenProcessPool as failure:
            raise LabellingError(
                "a labelling process died (often: out of memory); lower --workers and run the same command to go on"
            ) from failure
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(job: LabelJob) -> None:
    global _job
    _job = job
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_any([parent.sentinel])
    os._exit(1)


def _work(block: Block) -> Path:
    assert _job is not None
    return label_block(block, _job)


def _in_flight(blocks: Sequence[Block], pool: ProcessPoolExecutor, limit: int) -> Iterator[tuple[Block, Path]]:
    """Keep at most `limit` blocks submitted, so that a million blocks do not become a million futures."""
    queue = iter(blocks)
    running: dict[Future[Path], Block] = {pool.submit(_work, block): block for block in islice(queue, limit)}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()
            running.update((pool.submit(_work, block), block) for block in islice(queue, 1))

"""Run blocks in this process or in a pool of worker processes; the result is the same, byte for byte."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path

from buttress.errors import LabellingError
from buttress.interrupts import interrupts_held
from buttress.labelling.block import LabelJob, label_block
from buttress.labelling.plan import Block
from buttress.memory import keep_freed_memory

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
    ended, end = context.Pipe(duplex=False)
    with ended, ProcessPoolExecutor(min(workers, len(blocks)), context, _start_worker, (job, ended)) as pool:
        try:
            yield from _in_flight(blocks, pool, 2 * workers)
        except BrokenProcessPool as failure:
            raise LabellingError(
                "a labelling process died (often: out of memory); lower --workers and run the same command to go on"
            ) from failure
        except BaseException:  # the blocks under way are made again: nobody waits for them after Ctrl-C
            end.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            end.close()


def _start_worker(job: LabelJob, ended: Connection) -> None:
    global _job
    _job = job
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, args=(ended,), daemon=True).start()


def _end_with_parent(ended: Connection) -> None:
    """End when the parent says so by closing its end of a pipe, or is killed: a worker would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_any([parent.sentinel, ended])
    os._exit(1)


def _work(block: Block) -> Path:
    assert _job is not None
    return label_block(block, _job)


def _in_flight(blocks: Sequence[Block], pool: ProcessPoolExecutor, limit: int) -> Iterator[tuple[Block, Path]]:
    """Keep at most `limit` blocks submitted, so that a million blocks do not become a million futures."""
    queue = iter(blocks)
    running = {_submitted(pool, block): block for block in islice(queue, limit)}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()
            running.update((_submitted(pool, block), block) for block in islice(queue, 1))


def _submitted(pool: ProcessPoolExecutor, block: Block) -> Future[Path]:
    with interrupts_held():  # it may start a process
        return pool.submit(_work, block)

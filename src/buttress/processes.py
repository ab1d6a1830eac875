"""Tasks in this process or in a pool of worker processes: none outlives it, and Ctrl-C is told by it alone."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
from typing import Any, TypeVar

from buttress.errors import ButtressError
from buttress.interrupts import interrupts_held
from buttress.memory import keep_freed_memory

Task = TypeVar("Task")
Result = TypeVar("Result")

_act: Callable[[Any], Any] | None = None


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    tasks: Sequence[Task], act: Callable[[Task], Result], workers: int, died: ButtressError
) -> Iterator[tuple[Task, Result]]:
    """Do `tasks`, giving each with its result as it is done, in any order.

    Args:
        tasks: hashable or not; each is pickled to a worker, as its result is back.
        act: what is done with one; pickled once per worker.
        workers: 0 = in this process; otherwise that many processes.
        died: raised where a worker process died.
    """
    if workers == 0 or len(tasks) <= 1:
        for task in tasks:
            yield task, act(task)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads can hang
    ended, end = context.Pipe(duplex=False)
    with ended, ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (act, ended)) as pool:
        try:
            yield from _in_flight(tasks, pool, 2 * workers)
        except BrokenProcessPool as failure:
            raise died from failure
        except BaseException:  # the tasks under way are made again: nobody waits for them after Ctrl-C
            end.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            end.close()


def _start_worker(act: Callable[[Any], Any], ended: Connection) -> None:
    global _act
    _act = act
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, args=(ended,), daemon=True).start()


def _end_with_parent(ended: Connection) -> None:
    """End when the parent says so by closing its end of a pipe, or is killed: a worker would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_any([parent.sentinel, ended])
    os._exit(1)


def _work(task: Any) -> Any:
    assert _act is not None
    return _act(task)


def _in_flight(tasks: Sequence[Task], pool: ProcessPoolExecutor, limit: int) -> Iterator[tuple[Task, Any]]:
    """Keep at most `limit` tasks submitted, so that a million tasks do not become a million futures."""
    queue = iter(tasks)
    running = {_submitted(pool, task): task for task in islice(queue, limit)}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()
            running.update((_submitted(pool, task), task) for task in islice(queue, 1))


def _submitted(pool: ProcessPoolExecutor, task: Any) -> Future[Any]:
    with interrupts_held():  # it may start a process
        return pool.submit(_work, task)

"""Run blocks in this process or in a pool of worker processes; the result is the same, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from buttress.errors import LabellingError
from buttress.labelling.block import LabelJob, label_block
from buttress.labelling.plan import Block
from buttress.processes import run_tasks


def run_blocks(blocks: Sequence[Block], job: LabelJob, workers: int) -> Iterator[tuple[Block, Path]]:
    """Label `blocks`, giving each with its file as it is done (in any order).

    Args:
        blocks: what to label.
        job: the settings.
        workers: 0 = in this process; otherwise that many processes.

    Raises:
        LabellingError: a worker process died.
    """
    died = LabellingError(
        "a labelling process died (often: out of memory); lower --workers and run the same command to go on"
    )
    return run_tasks(blocks, partial(label_block, job=job), workers, died)

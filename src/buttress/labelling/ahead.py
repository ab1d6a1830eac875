"""Draw views in other processes while this one asks the teacher: what fills a GPU. The blocks are the same to the byte.

Shapes: R rows drawn together, V views of each, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buttress.errors import ButtressError, LabellingError
from buttress.labelling.block import Drawn, DrawnRow, LabelJob, drawn_rows, label_block
from buttress.labelling.plan import Block

if TYPE_CHECKING:
    from buttress.labelling.row_images import RowImages

VIEWS_TOGETHER = 32  # drawn by a worker before they travel; of 224 px, 5 MB
BATCHES_AHEAD = 4  # of a worker

Request = tuple[Block, range]


def label_ahead(blocks: Sequence[Block], job: LabelJob, workers: int) -> Iterator[tuple[Block, Path]]:
    """Label `blocks` in this process, in their order, of views that `workers` processes draw meanwhile.

    Args:
        blocks: what to label; none has a file yet.
        job: the settings.
        workers: at least 1.

    Raises:
        LabellingError: a worker process died.
        ButtressError: as `label_block`.
    """
    requests = [_requests(block) for block in blocks]
    answers = _answers([request for some in requests for request in some], job, workers)
    for block, some in zip(blocks, requests, strict=True):
        images = job.row_images()
        yield block, label_block(block, job, Drawn(_rows(len(some), answers, images), images))


def _requests(block: Block) -> list[Request]:
    area = block.area
    step = max(VIEWS_TOGETHER // area.views, 1)
    firsts = range(area.first_row, area.stop_row, step)
    return [(block, range(first, min(first + step, area.stop_row))) for first in firsts]


def _rows(requests: int, answers: Iterator[Any], images: RowImages) -> Iterator[DrawnRow]:
    """The rows of the next `requests` answers; what was seen of their images goes to `images`."""
    for _ in range(requests):
        try:
            answer = next(answers)
        except RuntimeError as failure:  # what torch raises where a worker is gone
            raise LabellingError(
                "a process that draws views died (often: out of memory); lower --workers and run the same command to "
                "go on"
            ) from failure
        if isinstance(answer, ButtressError):
            raise answer
        rows, seen = answer
        for row, content in seen.items():
            images.note(row, content)
        for row, drawn, views in rows:
            yield row, drawn, {side: views_VHWC.numpy() for side, views_VHWC in views.items()}


def _answers(requests: list[Request], job: LabelJob, workers: int) -> Iterator[Any]:
    """What `_Draw` gives for each request, in their order."""
    import torch
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        _Draw(job),  # type: ignore[arg-type]  # what it needs of a data set is __getitem__
        sampler=requests,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=BATCHES_AHEAD,
        collate_fn=_as_is,
        generator=torch.Generator(),
    )
    return iter(loader)


class _Draw:
    """Draws the rows of a request: what the worker processes run. Tensors cross to the reader without a copy."""

    def __init__(self, job: LabelJob) -> None:
        self.job = job

    def __getitem__(self, request: Request) -> Any:
        import torch

        block, rows = request
        images = self.job.row_images()
        try:
            drawn = list(drawn_rows(block, rows, self.job, images))
        except ButtressError as failure:
            return failure
        tensors = [
            (row, views, {side: torch.from_numpy(pixels) for side, pixels in sides.items()})
            for row, views, sides in drawn
        ]
        return tensors, images.seen


def _as_is(answer: Any) -> Any:
    return answer

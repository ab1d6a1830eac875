"""Label one block: a pure, idempotent function from (block, job) to a file. Every engine runs this very function.

Shapes: N rows of the block, V views of the block, S bytes a record, C classes, B teacher batch, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from buttress.errors import LabellingError
from buttress.files import write_atomic
from buttress.labelling.looks import Views, WaitingViews, views_at_sizes
from buttress.labelling.plan import Block
from buttress.labelling.truth import truth_codes
from buttress.sources import Source, UndecodableImage, content_hash
from buttress.store.card import TRUTH
from buttress.store.codec import TopKLog8, top_k
from buttress.teachers.ensemble import Ensemble, EnsembleSpec
from buttress.views.policy import Policy
from buttress.views.render import Renderer

CHECKSUM_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """Everything a worker needs; it travels to worker processes, so it holds descriptions and no open teacher.

    Args:
        source: the images.
        order: source index of every row, `[rows]`.
        hashes: id hash of every row, `[rows]`.
        teacher: how to open the teachers.
        policy: the augmentation policy.
        seed: seed of the views.
        k: classes kept per view.
        classes: length C of the teacher's answer.
        sizes: sides of the teachers' views, pixels.
        batch: views per forward pass; cut inside the block.
        digest: digest of the settings that decide the bytes.
        work: folder of the finished blocks.
        hard_labels: label of every row, `[rows]`, -1 = none, where its probability is stored too; else none.
        opened: the teachers, once this process has opened them.
    """

    source: Source
    order: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    teacher: EnsembleSpec
    policy: Policy
    seed: int
    k: int
    classes: int
    sizes: tuple[int, ...]
    batch: int
    digest: str
    work: Path
    hard_labels: NDArray[np.int32] | None = None
    opened: list[Ensemble] = field(default_factory=list, repr=False, compare=False)

    def open_teacher(self) -> Ensemble:
        """The teachers, opened once per process."""
        if not self.opened:
            self.opened.append(self.teacher.open())
        return self.opened[0]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "opened": []}

    @cached_property
    def codec(self) -> TopKLog8:
        return TopKLog8(self.k, self.classes)


@dataclass(frozen=True, slots=True)
class BlockLabels:
    """A labelled block: records `[V, N, S]`, content hashes `[N]` (0 where the image could not be decoded).

    truth_VN: codes of the hard labels' probabilities `[V, N]` (0 where there is none), where they are stored too.
    """

    labels_VNS: NDArray[np.uint8]
    content_hashes_N: NDArray[np.uint64]
    truth_VN: NDArray[np.uint8] | None = None


def label_block(block: Block, job: LabelJob) -> Path:
    """Render the views of `block`, ask the teacher, write the records; returns the file.

    A file that is there, whole and of the same samples is returned as it is. Rows whose image cannot be decoded get
    absent records.
    """
    path = block_path(block, job.work)
    if read_block(path, block, job) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _pack(_label(block, job), _context(block, job)))
    return path


def block_path(block: Block, work: Path) -> Path:
    """Where a finished block lies."""
    return work / block.part / f"block-{block.number:06d}"


def read_block(path: Path, block: Block, job: LabelJob) -> BlockLabels | None:
    """The finished block, or none where it is missing, damaged, of other settings or of other samples."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if hashlib.sha256(_context(block, job) + body).digest() != checksum:
        return None
    try:
        tensors = safetensors.numpy.load(body)
    except SafetensorError:
        return None
    return BlockLabels(tensors["labels"], tensors["content_hashes"], tensors.get(TRUTH))


def _pack(labels: BlockLabels, context: bytes) -> bytes:
    tensors: dict[str, NDArray[Any]] = {"labels": labels.labels_VNS, "content_hashes": labels.content_hashes_N}
    if labels.truth_VN is not None:
        tensors[TRUTH] = labels.truth_VN
    body = safetensors.numpy.save(tensors)
    return bytes(body + hashlib.sha256(context + body).digest())


def _context(block: Block, job: LabelJob) -> bytes:
    """What a block must have been made of, beside its own bytes: it goes into its checksum."""
    rows = slice(block.area.first_row, block.area.stop_row)
    labels = b"" if job.hard_labels is None else job.hard_labels[rows].tobytes()
    return f"{job.digest} {block} ".encode() + job.hashes[rows].tobytes() + labels


def _label(block: Block, job: LabelJob) -> BlockLabels:
    area = block.area
    labels_VNS = np.zeros((area.views, area.rows, job.codec.stride), np.uint8)
    hashes_N = np.zeros(area.rows, np.uint64)
    truth_VN = None if job.hard_labels is None else np.zeros((area.views, area.rows), np.uint8)
    for views, at_B in _batches(block, job, hashes_N):
        probabilities_BC = job.open_teacher().probabilities(views)
        if probabilities_BC.shape != (len(at_B), job.classes):
            raise LabellingError(
                f"the teacher answered {probabilities_BC.shape} for {len(at_B)} views of {job.classes} classes"
            )
        row_B, view_B = np.divmod(at_B, area.views)
        labels_VNS[view_B, row_B] = job.codec.encode(*top_k(probabilities_BC, job.k))
        if truth_VN is not None and job.hard_labels is not None:
            truth_VN[view_B, row_B] = truth_codes(probabilities_BC, job.hard_labels[area.first_row + row_B])
    return BlockLabels(labels_VNS, hashes_N, truth_VN)


def _batches(block: Block, job: LabelJob, hashes_N: NDArray[np.uint64]) -> Iterator[tuple[Views, NDArray[np.int64]]]:
    """Teacher batches in row-major order with the place (row * V + view) of each; fills in the content hashes."""
    waiting = WaitingViews(job.sizes)
    places: list[int] = []
    for row, drawn in _rendered_rows(block, job, hashes_N):
        waiting.add(drawn)
        places.extend(range(row * block.area.views, (row + 1) * block.area.views))
        while len(waiting) >= job.batch:
            yield waiting.batch(0, job.batch), np.array(places[: job.batch])
            waiting.drop(job.batch)
            del places[: job.batch]
    if places:
        yield waiting.batch(0, job.batch), np.array(places)


def _rendered_rows(block: Block, job: LabelJob, hashes_N: NDArray[np.uint64]) -> Iterator[tuple[int, Views]]:
    renderer = Renderer(job.policy, job.seed)
    views = range(block.area.first_view, block.area.stop_view)
    for row, index in enumerate(job.order[block.area.first_row : block.area.stop_row]):
        try:
            sample = job.source[int(index)]
            drawn = views_at_sizes(renderer, sample, views, job.sizes)
        except UndecodableImage:
            continue
        hashes_N[row] = content_hash(sample.data)
        yield row, drawn

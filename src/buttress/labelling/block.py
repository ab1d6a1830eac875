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
from buttress.labelling.row_images import RowImages
from buttress.labelling.truth import truth_codes
from buttress.sources import Source, UndecodableImage
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
        partners: M, rows that views are mixed with.
        unreadable: rows whose image could not be decoded when other views of it were labelled.
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
    partners: int
    unreadable: frozenset[int] = frozenset()
    hard_labels: NDArray[np.int32] | None = None
    opened: list[Ensemble] = field(default_factory=list, repr=False, compare=False)

    def row_images(self) -> RowImages:
        """The images of its rows, of which nothing was seen yet."""
        return RowImages(self.source, self.order, self.hashes, self.unreadable)

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

    @cached_property
    def partners_digest(self) -> bytes:
        """Of the ids of the rows that views are mixed with; empty where none are."""
        return hashlib.sha256(self.hashes[: self.partners].tobytes()).digest() if self.policy.mixes else b""


@dataclass(frozen=True, slots=True)
class BlockLabels:
    """A labelled block: records `[V, N, S]`, content hashes `[N]` (0 where the image could not be decoded).

    So too of the P other rows that its views are mixed with: `partners_P` ascending, and their content hashes.
    truth_VN: codes of the hard labels' probabilities `[V, N]` (0 where there is none), where they are stored too.
    """

    labels_VNS: NDArray[np.uint8]
    content_hashes_N: NDArray[np.uint64]
    partners_P: NDArray[np.int64]
    partner_hashes_P: NDArray[np.uint64]
    truth_VN: NDArray[np.uint8] | None = None

    def rows_seen(self, block: Block) -> NDArray[np.int64]:
        """The block's rows, then the partners `[N + P]`."""
        return np.concatenate([np.arange(block.area.first_row, block.area.stop_row), self.partners_P])

    @property
    def contents_seen(self) -> NDArray[np.uint64]:
        """Content hashes of `rows_seen`."""
        return np.concatenate([self.content_hashes_N, self.partner_hashes_P])


DrawnRow = tuple[int, list[int], Views]
"""A row of a block, counted from its first; the views of it that could be drawn, likewise; their pixels."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows of a block, drawn as they are asked for.

    Args:
        rows: all that decode, in order.
        images: what was seen of them by then.
    """

    rows: Iterator[DrawnRow]
    images: RowImages


def label_block(block: Block, job: LabelJob, drawn: Drawn | None = None) -> Path:
    """Render the views of `block`, ask the teacher, write the records; returns the file.

    A file that is there, whole and of the same samples is returned as it is. Rows whose image cannot be decoded get
    absent records, and so do views that are mixed with such an image.

    Args:
        block: what to label.
        job: how.
        drawn: its rows, where others draw them; none = this process does.
    """
    path = block_path(block, job.work)
    if read_block(path, block, job) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _pack(_label(block, job, drawn or _drawn_here(block, job)), _context(block, job)))
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
    return BlockLabels(
        tensors["labels"], tensors["content_hashes"], tensors["partners"], tensors["partner_hashes"], tensors.get(TRUTH)
    )


def _pack(labels: BlockLabels, context: bytes) -> bytes:
    tensors: dict[str, NDArray[Any]] = {
        "labels": labels.labels_VNS,
        "content_hashes": labels.content_hashes_N,
        "partners": labels.partners_P,
        "partner_hashes": labels.partner_hashes_P,
    }
    if labels.truth_VN is not None:
        tensors[TRUTH] = labels.truth_VN
    body = safetensors.numpy.save(tensors)
    return bytes(body + hashlib.sha256(context + body).digest())


def _context(block: Block, job: LabelJob) -> bytes:
    """What a block must have been made of, beside its own bytes: it goes into its checksum."""
    rows = slice(block.area.first_row, block.area.stop_row)
    labels = b"" if job.hard_labels is None else job.hard_labels[rows].tobytes()
    return f"{job.digest} {block} ".encode() + job.hashes[rows].tobytes() + labels + job.partners_digest


def _label(block: Block, job: LabelJob, drawn: Drawn) -> BlockLabels:
    area = block.area
    labels_VNS = np.zeros((area.views, area.rows, job.codec.stride), np.uint8)
    truth_VN = None if job.hard_labels is None else np.zeros((area.views, area.rows), np.uint8)
    for views, at_B in _batches(block, job, drawn.rows):
        probabilities_BC = job.open_teacher().probabilities(views)
        if probabilities_BC.shape != (len(at_B), job.classes):
            raise LabellingError(
                f"the teacher answered {probabilities_BC.shape} for {len(at_B)} views of {job.classes} classes"
            )
        row_B, view_B = np.divmod(at_B, area.views)
        labels_VNS[view_B, row_B] = job.codec.encode(*top_k(probabilities_BC, job.k))
        if truth_VN is not None and job.hard_labels is not None:
            truth_VN[view_B, row_B] = truth_codes(probabilities_BC, job.hard_labels[area.first_row + row_B])
    return BlockLabels(labels_VNS, *_seen(block, drawn.images), truth_VN)


def _seen(block: Block, images: RowImages) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    """Content hashes of the block's rows, and the other rows that were looked at with theirs."""
    own = range(block.area.first_row, block.area.stop_row)
    others = sorted(images.seen.keys() - set(own))
    hashes_N, hashes_P = (np.array([images.seen[row] for row in rows], np.uint64) for rows in (own, others))
    return hashes_N, np.array(others, np.int64), hashes_P


def _batches(block: Block, job: LabelJob, rows: Iterator[DrawnRow]) -> Iterator[tuple[Views, NDArray[np.int64]]]:
    """Teacher batches in row-major order with the place (row * V + view) of each."""
    waiting = WaitingViews(job.sizes)
    places: list[int] = []
    for row, drawn, views in rows:
        waiting.add(views)
        places.extend(row * block.area.views + view for view in drawn)
        while len(waiting) >= job.batch:
            yield waiting.batch(0, job.batch), np.array(places[: job.batch])
            waiting.drop(job.batch)
            del places[: job.batch]
    if places:
        yield waiting.batch(0, job.batch), np.array(places)


def _drawn_here(block: Block, job: LabelJob) -> Drawn:
    images = job.row_images()
    return Drawn(drawn_rows(block, range(block.area.first_row, block.area.stop_row), job, images), images)


def drawn_rows(block: Block, rows: range, job: LabelJob, images: RowImages) -> Iterator[DrawnRow]:
    """Of those `rows` of a block that decode, the views that can be drawn, and their pixels."""
    renderer = Renderer(job.policy, job.seed, job.partners)
    area = block.area
    numbers = range(area.first_view, area.stop_view)
    for row in rows:
        try:
            drawn, views = views_at_sizes(renderer, images.load(row), numbers, job.sizes, images.load)
        except UndecodableImage:
            continue
        yield row - area.first_row, [view - area.first_view for view in drawn], views

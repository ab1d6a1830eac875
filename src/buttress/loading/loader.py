"""Batches for training and evaluation, made in worker processes, in an order that is ours.

The epoch travels with the indices of every batch, so workers that live on see it without being told.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from buttress.errors import ButtressError, SourceError
from buttress.loading.batches import ArrayBatch, Batches
from buttress.loading.schedule import WHOLE, Place, Request, Schedule, Share
from buttress.loading.targets import Batch, SparseTargets
from buttress.sources import chunks_of
from buttress.terminal import warn

Fetched = tuple[Batch, tuple[str, ...]]  # a batch, and the ids of the images that are not in it: they do not decode


class _Fetch(Dataset[list[Fetched] | ButtressError]):
    """Turns (epochs, indices) into a batch of each epoch; this is what the worker processes run.

    The user's mistakes come back as values: raised in a worker, torch would wrap them in the text of a traceback.
    Tensors are made here and not by the reader: they cross to it through shared memory, arrays through a pipe.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, request: Request) -> list[Fetched] | ButtressError:
        epochs, indices = request
        try:
            if len(epochs) == 1:
                arrays = self.batches.batch(indices, epochs[0])
                return [(_to_torch(arrays, self.batches), arrays.undecodable)]
            # Every sample in all epochs before the next one, so that it is decoded once.
            arrays = self.batches.batch(np.repeat(indices, len(epochs)), np.tile(np.array(epochs), len(indices)))
        except ButtressError as failure:
            return failure
        made = [_to_torch(arrays.of_epoch(epoch), self.batches) for epoch in epochs]
        return [(batch, arrays.undecodable if number == 0 else ()) for number, batch in enumerate(made)]


class BatchLoader:
    """An iterable of `Batch` with `set_epoch` and `steps_per_epoch`.

    In training every step has a batch, even one of no images where none of its images can be decoded.

    Args:
        batches: how a batch is made.
        batch: samples per global batch. Training drops the last, smaller batch of an epoch; evaluation keeps it.
        seed: seed of the order.
        shuffle: true for training. Where the source has chunks, they are shuffled, then the samples near one another.
        workers: worker processes; 0 = in this process.
        share: which slice of the global batches is this process's.
        max_bad: largest share, 0..1, of images that may fail to decode; they are left out, named and counted.
        views_per_decode: views of a sample from one decode of it: each in a batch of another epoch, as far apart as
            memory allows (`Schedule`). Of a training that ends, those that lie ahead are not shown.

    Raises:
        SourceError: more images than `max_bad` cannot be decoded.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        batch: int,
        seed: int = 0,
        shuffle: bool,
        workers: int = 0,
        share: Share = WHOLE,
        max_bad: float = 0.001,
        views_per_decode: int = 1,
    ) -> None:
        self._max_bad = max_bad
        chunks = chunks_of(batches.source)
        self._schedule = Schedule(
            batches.usable, batch, seed, shuffle, share, chunks, views_per_decode, batches.view_bytes
        )
        self._held: dict[Place, Fetched] = {}
        self._next = -1
        self._bad: set[str] = set()
        self._loader: DataLoader[list[Fetched] | ButtressError] = DataLoader(
            _Fetch(batches),
            sampler=self._schedule,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_as_is,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_left_to_the_parent,
            # Every iterator draws a seed for its workers. From torch's global generator that would move the model's
            # own draws (dropout), by an amount that depends on the workers and on where a training was resumed.
            generator=torch.Generator(),
        )

    @property
    def steps_per_epoch(self) -> int:
        return self._schedule.steps

    @property
    def samples(self) -> int:
        """Samples that an epoch draws from."""
        return len(self._schedule.usable)

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Iterate over `epoch` next, from its step `first_step` (0..steps_per_epoch) on."""
        self._schedule.epoch, self._schedule.first_step = epoch, first_step

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        times = self._schedule.times
        if times.start != self._next:
            self._held.clear()
        self._schedule.groups_held = frozenset(group for group, _ in self._held)
        fetched = iter(self._loader)
        for time in times:
            place = self._schedule.place(time)
            if place not in self._held:
                self._hold(place, next(fetched))
            batch, undecodable = self._held.pop(place)
            self._next = time + 1
            self._count_bad(undecodable)
            if batch.ids or self._schedule.shuffle:
                yield batch

    def _hold(self, first: Place, fetched: list[Fetched] | ButtressError) -> None:
        """Keep the views of a group, from one on; those that are not shown at once in a memory of their own."""
        if isinstance(fetched, ButtressError):
            raise fetched
        (group, first_view), (shown, undecodable) = first, fetched[0]
        self._held[first] = shown, undecodable
        for view, (batch, _) in enumerate(fetched[1:], start=first_view + 1):
            self._held[group, view] = batch.unshared(), ()

    def _count_bad(self, ids: tuple[str, ...]) -> None:
        for sample_id in sorted(set(ids) - self._bad):
            warn(f"{sample_id}: image cannot be decoded, left out")
        self._bad.update(ids)
        if len(self._bad) > self._max_bad * self.samples:
            raise SourceError(
                f"{len(self._bad)} of {self.samples:,} images cannot be decoded, more than {self._max_bad:.2%} "
                f"(e.g. {min(self._bad)}); repair or remove them, or raise --max-bad"
            )


def _to_torch(arrays: ArrayBatch, batches: Batches) -> Batch:
    images_BCHW = torch.from_numpy(arrays.views_BHWC).permute(0, 3, 1, 2)
    teacher_views = None
    if arrays.teacher_views is not None:
        teacher_views = {side: torch.from_numpy(views_BHWC) for side, views_BHWC in arrays.teacher_views.items()}
    ids = tuple(batches.source.ids[i] for i in arrays.index_B.tolist())
    if arrays.values_BK is None or arrays.ids_BK is None or arrays.rest_B is None:
        labels = _labels(arrays, batches)
        mixed = isinstance(labels, SparseTargets)
        return Batch(images_BCHW, labels, ids, mixed=mixed, teacher_views=teacher_views)
    assert batches.classes is not None
    targets = _sparse(arrays.values_BK, arrays.ids_BK, arrays.rest_B, len(batches.classes))
    truth_B = None if arrays.truth_B is None else torch.from_numpy(arrays.truth_B)
    return Batch(images_BCHW, targets, ids, labels=_labels(arrays, batches), truth=truth_B)


def _labels(arrays: ArrayBatch, batches: Batches) -> SparseTargets | Tensor:
    """Hard labels: int64 `[B]`, of mixed views sparse. Where no sample has one, there is nothing to mix."""
    if batches.label_classes and (arrays.own_share_B < 1).any():
        return _sparse(*arrays.label_masses(), batches.label_classes)
    return torch.from_numpy(arrays.labels_B).long()


def _sparse(
    values_BK: NDArray[np.float32], ids_BK: NDArray[np.int32], rest_B: NDArray[np.float32], classes: int
) -> SparseTargets:
    ids = torch.from_numpy(ids_BK).long()
    return SparseTargets(values=torch.from_numpy(values_BK), ids=ids, rest=torch.from_numpy(rest_B), classes=classes)


def _left_to_the_parent(number: int) -> None:
    """Only the parent's SIGTERM ends this worker.

    Schedulers signal every process of a job; a training that finishes its step first still needs its batches. A
    program that ends with a loader open ends its workers so, and then waits for them.
    """
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where each of them ends it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_the_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _as_is(arrays: Any) -> Any:
    return arrays

"""Batches for training and evaluation, made in worker processes, in an order that is ours.

The epoch travels with the indices of every batch, so workers that live on see it without being told.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from buttress.errors import ButtressError, SourceError
from buttress.loading.batches import ArrayBatch, Batches
from buttress.loading.line import DelayLine
from buttress.loading.schedule import WHOLE, Request, Schedule, Share
from buttress.loading.targets import Batch, SparseTargets
from buttress.sources import chunks_of
from buttress.terminal import warn


@dataclass(frozen=True, slots=True)
class _Made:
    """Samples of a request on their way from the process that made them; arrays as tensors, which need no pipe."""

    arrays: dict[str, Any]
    request: Request

    @staticmethod
    def of(arrays: ArrayBatch, request: Request) -> _Made:
        return _Made({each.name: _tensors(getattr(arrays, each.name)) for each in fields(arrays)}, request)

    def back(self) -> ArrayBatch:
        return ArrayBatch(**{name: _arrays(value) for name, value in self.arrays.items()})


Whole = tuple[Batch, tuple[str, ...]]  # a batch, and the ids of the images that are not in it: they do not decode
Fetched = Whole | _Made | ButtressError


class _Fetch(Dataset[Fetched]):
    """Makes what is asked for; this is what the worker processes run.

    A batch where the samples are all of one, and of several views per decode the samples as they are.

    The user's mistakes come back as values: raised in a worker, torch would wrap them in the text of a traceback.
    Tensors are made here and not by the reader: they cross to it through shared memory, arrays through a pipe.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, request: Request) -> Fetched:
        try:
            arrays = self.batches.batch(request.index_M, request.epoch_M)
        except ButtressError as failure:
            return failure
        return (_to_torch(arrays, self.batches), arrays.undecodable) if request.whole else _Made.of(arrays, request)


class _Sampler:
    """The requests of whichever schedule is asked for."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __iter__(self) -> Iterator[Request]:
        return iter(self.schedule)


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
        views_per_decode: views of a sample from one decode of it, in batches as far apart as memory allows
            (`Schedule`). At the end of a training some of them have not been shown.

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
        self._batches, self._max_bad = batches, max_bad
        chunks = chunks_of(batches.source)
        of_views = partial(Schedule, batches.usable, batch, seed, shuffle, share, chunks, view_bytes=batches.view_bytes)
        self._schedule = of_views(views=views_per_decode)
        self._single = of_views()
        self._sampler = _Sampler(self._schedule)
        self._line, self._next = DelayLine(), -1
        self._bad: set[str] = set()
        self._loader: DataLoader[Fetched] = DataLoader(
            _Fetch(batches),
            sampler=self._sampler,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=(2 if views_per_decode == 1 else 1) if workers else None,  # a request is for all views
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
        yield from self._shown(self._whole(self._schedule) if self._schedule.views == 1 else self._delayed())

    def pass_over(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch as with one view per decode; the epoch that comes next finds what was held.

        Not for the middle of an epoch: there is one set of workers.
        """
        self._single.epoch, self._single.first_step = epoch, 0
        yield from self._shown(self._whole(self._single))

    def line(self) -> str | None:
        """What several views per decode come to, in one line for the user."""
        if self._schedule.views == 1:
            return None
        views, batches = self._schedule.views, self._schedule.apart * self._schedule.views
        held = self._schedule.most_held + self._loader.num_workers * views * self._schedule.group_bytes
        return (
            f"{views} views per decode: those of an image about {batches + 1:,} batches apart (an epoch has "
            f"{self.steps_per_epoch:,}); about {held / 1e6:,.0f} MB of views are held, over all processes"
        )

    def _shown(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return (batch for batch in batches if batch.ids or self._schedule.shuffle)

    def _whole(self, schedule: Schedule) -> Iterator[Batch]:
        self._sampler.schedule = schedule
        for fetched in self._loader:
            if isinstance(fetched, ButtressError):
                raise fetched
            assert not isinstance(fetched, _Made)
            batch, undecodable = fetched
            self._count_bad(undecodable)
            yield batch

    def _delayed(self) -> Iterator[Batch]:
        """Batches of samples that were made now and before, if need be in an epoch before."""
        times = self._schedule.times
        if times.start != self._next:
            self._line.clear()
            self._schedule.begun, self._next = times.start, -1
        self._sampler.schedule = self._schedule
        fetched = iter(self._loader)
        for time in times:
            self._next = -1  # until the batch is there: who interrupts leaves something half done
            if self._schedule.asks(time):
                self._hold(next(fetched))
            batch = _to_torch(self._line.batch(time), self._batches)
            self._next = time + 1
            yield batch.pin_memory() if self._loader.pin_memory else batch

    def _hold(self, made: Fetched) -> None:
        if isinstance(made, ButtressError):
            raise made
        assert isinstance(made, _Made)
        arrays, request = made.back(), made.request
        self._count_bad(arrays.undecodable)
        kept, view_M = arrays.place_B, request.epoch_M % self._schedule.views
        self._line.put(arrays, request.time_M[kept], request.slot_M[kept], view_M[kept])

    def _count_bad(self, ids: tuple[str, ...]) -> None:
        for sample_id in sorted(set(ids) - self._bad):
            warn(f"{sample_id}: image cannot be decoded, left out")
        self._bad.update(ids)
        if len(self._bad) > self._max_bad * self.samples:
            raise SourceError(
                f"{len(self._bad)} of {self.samples:,} images cannot be decoded, more than {self._max_bad:.2%} "
                f"(e.g. {min(self._bad)}); repair or remove them, or raise --max-bad"
            )


def _tensors(value: Any) -> Any:
    """Arrays as tensors, those of a mapping too."""
    if isinstance(value, Mapping):
        return {key: _tensors(each) for key, each in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _arrays(value: Any) -> Any:
    """And back, on the same memory."""
    if isinstance(value, Mapping):
        return {key: _arrays(each) for key, each in value.items()}
    return value.numpy() if isinstance(value, Tensor) else value


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

"""What a model is scored on while it trains: classes are matched as by `buttress evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from buttress.errors import ModelError
from buttress.loading.loader import WHOLE, BatchLoader, Share
from buttress.loading.targets import Batch
from buttress.metrics.score import evaluation_loader
from buttress.models.load import LoadedModel
from buttress.sources import Source
from buttress.teachers.classes import choose_classes
from buttress.terminal import note


class ScoredBatches:
    """Batches whose label i is `outputs[i]`, a number of the model's own classes; -1 (none) stays.

    Args:
        batches: with the labels of their source.
        outputs: for each class of the source the model's output.
    """

    def __init__(self, batches: BatchLoader, outputs: Sequence[int]) -> None:
        self._batches, self._table = batches, torch.tensor([*outputs, -1])

    @property
    def steps_per_epoch(self) -> int:
        return self._batches.steps_per_epoch

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """As of the batches that it is made of."""
        self._batches.set_epoch(epoch, first_step)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            assert isinstance(batch.targets, torch.Tensor)
            yield replace(batch, targets=self._table[batch.targets])


def scored_batches(
    student: LoadedModel,
    source: Source,
    *,
    class_map: Path | None,
    workers: int,
    max_bad: float,
    share: Share = WHOLE,
) -> ScoredBatches:
    """The labelled images of a source with labels in the classes that the student learns.

    Args:
        student: the model with the names of the classes that it learns.
        source: labelled images.
        class_map: YAML file, class of the source -> class of the student, where names do not say it.
        workers: worker processes.
        max_bad: largest share, 0..1, of images that may fail to decode.
        share: which slice of every batch is this process's.

    Raises:
        SourceError, ModelError: nothing to score, classes that do not fit, or one that is the sum of several.
    """
    loader = evaluation_loader(student.preprocessing, source, workers=workers, max_bad=max_bad, share=share)
    assert source.classes is not None
    own, learnt = tuple(source.classes), student.classes
    assert learnt is not None
    chosen = choose_classes(
        learnt, mode="source", source_classes=own, class_map=class_map, teacher=f"--val {source.uri}: the model"
    )
    if chosen.groups is None:
        return ScoredBatches(loader, range(len(own)))
    for name, group in zip(own, chosen.groups, strict=True):
        if len(group) != 1:
            names = " + ".join(learnt[index] for index in group)
            raise ModelError(
                f"{source.uri}: {name!r} is the sum of {names}, which is not scored while training; leave --val out, "
                "and score the run by buttress evaluate --class-map"
            )
    if len(own) < len(learnt):
        note(f"{source.uri}: has {len(own):,} of the {len(learnt):,} classes that are learnt; it is scored over all")
    return ScoredBatches(loader, [group[0] for group in chosen.groups])

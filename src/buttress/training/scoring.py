"""What a model is scored on while it trains: classes are matched as by `buttress evaluate`."""

from __future__ import annotations

from pathlib import Path

from buttress.errors import ModelError
from buttress.loading.schedule import WHOLE, Share
from buttress.metrics.score import RelabelledBatches, classes_of, evaluation_loader
from buttress.models.load import LoadedModel
from buttress.sources import Source
from buttress.teachers.classes import choose_classes
from buttress.terminal import note


def scored_batches(
    student: LoadedModel,
    source: Source,
    *,
    class_map: Path | None,
    workers: int,
    max_bad: float,
    share: Share = WHOLE,
) -> RelabelledBatches:
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
    own, learnt = classes_of(source), student.classes
    assert learnt is not None
    chosen = choose_classes(
        learnt, mode="source", source_classes=own, class_map=class_map, teacher=f"--val {source.uri}: the model"
    )
    if found := chosen.first_sum(learnt):
        raise ModelError(
            f"{source.uri}: {found[0]!r} is the sum of {found[1]}, which is not scored while training; leave --val "
            "out, and score the run by buttress evaluate --class-map"
        )
    loader = evaluation_loader(student.preprocessing, source, workers=workers, max_bad=max_bad, share=share)
    if chosen.groups is None:
        return RelabelledBatches(loader, range(len(own)))
    if len(own) < len(learnt):
        note(f"{source.uri}: has {len(own):,} of the {len(learnt):,} classes that are learnt; it is scored over all")
    return RelabelledBatches(loader, [group[0] for group in chosen.groups])

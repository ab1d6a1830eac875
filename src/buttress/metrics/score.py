"""Score a model on a source: the evaluation look of the model, every labelled image once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from buttress.errors import SourceError
from buttress.loading.batches import HardBatches
from buttress.loading.loader import BatchLoader
from buttress.loading.schedule import WHOLE, Share
from buttress.loading.targets import Batch
from buttress.metrics.crops import Canvas, ChosenCrops
from buttress.metrics.evaluate import Evaluation, predictions
from buttress.models.load import LoadedModel
from buttress.models.preprocessing import Preprocessing
from buttress.models.uri import parse_model_uri
from buttress.sources import Source, has_closed_classes
from buttress.teachers.classes import ClassMap, choose_classes
from buttress.terminal import note
from buttress.views.presets import eval_policy

EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How a model is scored.

    Args:
        class_map: YAML file, class of the source -> the model's class, where names do not say it.
        batch: images per batch.
        workers: worker processes.
        max_bad: largest share, 0..1, of images that may fail to decode.
        consistent: choose each crop by its content (`chosen_crop`) and not from the middle.
    """

    class_map: Path | None = None
    batch: int = EVALUATION_BATCH
    workers: int = 0
    max_bad: float = 0.001
    consistent: bool = False


AS_IT_IS = Scoring()


def evaluation_loader(
    preprocessing: Preprocessing,
    source: Source,
    workers: int = 0,
    batch: int = EVALUATION_BATCH,
    max_bad: float = 0.001,
    share: Share = WHOLE,
) -> BatchLoader:
    """Batches of the labelled images of `source`, in its order, as the model wants to see them.

    Args:
        preprocessing: of the model.
        source: images, some with a label.
        workers: worker processes.
        batch: images per batch.
        max_bad: largest share, 0..1, of images that may fail to decode.
        share: which slice of every batch is this process's.

    Raises:
        SourceError: no image has a label.
    """
    policy = eval_policy(preprocessing.size, preprocessing.crop_pct, preprocessing.interpolation)
    batches = HardBatches(source, policy, seed=0, size=preprocessing.size)
    return BatchLoader(batches, batch=batch, shuffle=False, workers=workers, max_bad=max_bad, share=share)


def classes_of(source: Source) -> tuple[str, ...]:
    """Names of the classes of a source that is to be scored on.

    Raises:
        SourceError: it has none.
    """
    if source.classes is None:
        raise SourceError(f"{source.uri}: has no labels to score on; put images in class sub-folders")
    return tuple(source.classes)


class RelabelledBatches:
    """Batches whose label i is `labels[i]`, among other classes; -1 (none) stays.

    Args:
        batches: with the labels of their source.
        labels: for each class of the source its number among the others.
    """

    def __init__(self, batches: BatchLoader | ChosenCrops, labels: Sequence[int]) -> None:
        self._batches, self._table = batches, torch.tensor([*labels, -1])

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


def score(loaded: LoadedModel, source: Source, how: Scoring = AS_IT_IS) -> Evaluation:
    """Top-1, top-5, NLL and ECE of a model on a source, in fp32, on the GPU where there is one.

    A run is scored over all classes it was trained on, also where the data has only some of them. Of another model the
    classes that the data has not are left out and its probabilities renormalised, which is an easier problem
    (`note_cut` says so).

    Args:
        loaded: the model; where its classes are not the source's they are mapped by name, WordNet id, or a class map.
        source: labelled images.
        how: batches, workers, crops.

    Raises:
        SourceError, ModelError: nothing to score, or classes that do not fit.
    """
    batches, chosen = scored_batches(loaded, source, how)
    assert chosen.classes is not None
    predicted = predictions(
        loaded.module,
        batches,
        preprocessing=loaded.preprocessing,
        classes=len(chosen.classes),
        device=evaluation_device(),
        class_map=chosen.groups,
    )
    return Evaluation.of(predicted, chosen.classes)


def scored_batches(loaded: LoadedModel, source: Source, how: Scoring) -> tuple[RelabelledBatches, ClassMap]:
    """The labelled images of a source as a model wants to see them, labelled among the classes that it is scored over.

    Arguments and errors are those of `score`.
    """
    classes = classes_of(source)
    chosen = scored_classes(loaded, source, how.class_map)
    assert chosen.classes is not None
    loader: BatchLoader | ChosenCrops
    look = loaded.preprocessing
    if how.consistent:
        canvas = Canvas.of(look)
        canvases = canvas.loader(source, batch=how.batch, workers=how.workers, max_bad=how.max_bad)
        loader = ChosenCrops(canvases, canvas, look.size)
    else:
        loader = evaluation_loader(look, source, how.workers, how.batch, how.max_bad)
    return RelabelledBatches(loader, [chosen.classes.index(name) for name in classes]), chosen


def evaluation_device() -> str:
    """Where models are scored: the GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def scored_classes(loaded: LoadedModel, source: Source, class_map: Path | None = None) -> ClassMap:
    """The classes that a model is scored over on this data, and which of its outputs belong to each.

    Raises:
        SourceError, ModelError: the data has no classes, or they do not fit.
    """
    classes = classes_of(source)
    some = loaded.classes is not None and _is_run_on_some_classes(loaded, classes)
    if some and class_map is None and not has_closed_classes(source):
        return ClassMap(classes=loaded.classes)
    return choose_classes(
        loaded.classes, mode="source", source_classes=classes, class_map=class_map, teacher=loaded.uri
    )


def _is_run_on_some_classes(loaded: LoadedModel, classes: tuple[str, ...]) -> bool:
    """Whether the data has a part of the classes of a run. A general model was not made to tell all of its own apart
    on this data, so there the cut is meant.
    """
    return parse_model_uri(loaded.uri).scheme == "run" and set(classes) < set(loaded.classes or ())


def note_cut(loaded: LoadedModel, chosen: ClassMap) -> None:
    """Say so where classes of the model are left out."""
    used = loaded.num_classes if chosen.groups is None else sum(len(group) for group in chosen.groups)
    if used < loaded.num_classes:
        note(f"{loaded.uri}: scored over the {used:,} of its {loaded.num_classes:,} classes that the data has")

"""What a model says of every image of a source, labelled or not. Shapes: N samples, B batch, K kept, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from buttress.errors import ModelError, SettingsError
from buttress.metrics.evaluate import batch_logits, evaluating
from buttress.metrics.score import EVALUATION_BATCH, evaluation_device, evaluation_loader, note_cut, scored_classes
from buttress.models.load import LoadedModel
from buttress.sources import Sample, Source
from buttress.teachers.classes import ClassMap, choose_classes
from buttress.terminal import note, progress

NOT_PREDICTED = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """A model's likeliest classes for the images of a source, in the source's order.

    Args:
        ids: the N sample ids.
        labels: name of each sample's class in the source, none where it has none.
        classes: names of the C classes that were predicted over.
        top_NK: int32, the K likeliest classes, the likeliest first; -1 where the image cannot be decoded.
        probabilities_NK: float32, 0..1, of these classes; NaN where the image cannot be decoded.
    """

    ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    classes: tuple[str, ...]
    top_NK: NDArray[np.int32]
    probabilities_NK: NDArray[np.float32]

    @property
    def undecodable(self) -> int:
        """How many images have no prediction."""
        return int((self.top_NK[:, 0] == NOT_PREDICTED).sum())


def predict_source(
    loaded: LoadedModel,
    source: Source,
    *,
    top_k: int = 5,
    class_map: Path | None = None,
    workers: int = 0,
    batch: int = EVALUATION_BATCH,
    max_bad: float = 0.001,
) -> Predictions:
    """Run a model over every image once, in its evaluation look, in fp32, on the GPU where there is one.

    Over the classes that `score` scores over; where the source has no classes, or none that the model knows, over the
    model's own.

    Args:
        loaded: the model.
        source: images, labelled or not.
        top_k: classes kept per image, 1 and up; at most C are.
        class_map: YAML file, class of the source (or of the output, where the source has none) -> the model's class.
        workers: worker processes.
        batch: images per batch; it moves no figure by more than float rounding.
        max_bad: largest share, 0..1, of images that may fail to decode.

    Raises:
        SettingsError: `top_k` below 1.
        SourceError, ModelError: too many images cannot be decoded, or classes that do not fit.
    """
    if top_k < 1:
        raise SettingsError(f"--top-k {top_k}: at least 1 class per image")
    chosen = _classes(loaded, source, class_map)
    names = tuple(map(str, range(loaded.num_classes))) if chosen.classes is None else chosen.classes
    top_NK = np.full((len(source), min(top_k, len(names))), NOT_PREDICTED, np.int32)
    probabilities_NK = np.full(top_NK.shape, np.nan, np.float32)
    loader = evaluation_loader(loaded.preprocessing, _Numbered(source), workers, batch, max_bad)
    with evaluating(loaded.module, evaluation_device()), progress("predicting", len(source), "images") as bar:
        for images in loader:
            assert isinstance(images.targets, torch.Tensor)
            logits_BC = batch_logits(loaded.module, images, loaded.preprocessing, len(names), chosen.groups)
            places_B = images.targets.numpy()
            top_NK[places_B], probabilities_NK[places_B] = _top(logits_BC.numpy(), top_NK.shape[1])
            bar.advance(len(places_B))
    return Predictions(
        ids=tuple(source.ids),
        labels=_label_names(source),
        classes=names,
        top_NK=top_NK,
        probabilities_NK=probabilities_NK,
    )


def _classes(loaded: LoadedModel, source: Source, class_map: Path | None) -> ClassMap:
    if source.classes is None and class_map is not None:
        return choose_classes(
            loaded.classes, mode="source", source_classes=None, class_map=class_map, teacher=loaded.uri
        )
    if source.classes is None:
        return ClassMap(classes=loaded.classes)
    if class_map is None and loaded.classes is not None and not _knows_any(loaded.classes, source.classes, loaded.uri):
        note(f"{source.uri}: none of its folders is a class of {loaded.uri}, which predicts over its own classes")
        return ClassMap(classes=loaded.classes)
    chosen = scored_classes(loaded, source, class_map)
    note_cut(loaded, chosen)
    return chosen


def _knows_any(own: tuple[str, ...], classes: Sequence[str], uri: str) -> bool:
    """Whether one of the classes is the model's. Folders by date or by camera are no classes; a misspelt one is."""
    for name in classes:
        try:
            choose_classes(own, mode="source", source_classes=(name,), class_map=None, teacher=uri)
        except ModelError:
            continue
        return True
    return False


class _Numbered:
    """A source whose labels are the places of its samples, so that a batch says where its images stand."""

    def __init__(self, source: Source) -> None:
        self.source, self.uri, self.ids, self.classes = source, source.uri, source.ids, None
        self.labels: NDArray[np.int32] = np.arange(len(source), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return replace(self.source[index], label=index)


def _top(logits_BC: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The k likeliest classes and their probabilities, [B, K]; of equal ones the lower class first, as in scoring."""
    shifted_BC = logits_BC.astype(np.float64) - logits_BC.max(axis=1, keepdims=True)
    with np.errstate(under="ignore"):
        masses_BC = np.exp(shifted_BC)
    order_BK = np.argsort(-logits_BC, axis=1, kind="stable")[:, :k]
    top_BK: NDArray[np.float64] = np.take_along_axis(masses_BC, order_BK, axis=1)
    return order_BK, top_BK / masses_BC.sum(axis=1, keepdims=True)


def _label_names(source: Source) -> tuple[str | None, ...]:
    if source.classes is None:
        return (None,) * len(source)
    names = source.classes
    return tuple(names[label] if label >= 0 else None for label in np.asarray(source.labels).tolist())

"""Figures of named parts of the images, each with its errors: one's own, or one such as ImageNet-M.

Which errors are major ones is for people to judge: Vasudevan et al. 2022, "When does dough become a bagel? Analyzing
the remaining mistakes on ImageNet", arXiv 2205.04596, judged those of strong models and made ImageNet-M of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from buttress.errors import SettingsError
from buttress.files import read_json
from buttress.metrics.evaluate import Evaluation, Predicted
from buttress.metrics.intervals import figure
from buttress.metrics.label_sets import (
    LabelSets,
    RightClasses,
    matched,
    multilabel_errors,
    multilabel_top1,
    predicted_classes,
    require_some,
    right_classes,
    right_names,
)
from buttress.sources.source import first_repeat


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A part of the images.

    Args:
        name: what it is called.
        place: where it comes from, for errors.
        images: sample ids or file names.
        right: image -> its right labels; None where the data's own labels, or other label sets, are to count.
    """

    name: str
    place: str
    images: tuple[str, ...]
    right: Mapping[str, frozenset[str]] | None = None


def read_slices(path: Path) -> tuple[Slice, ...]:
    """Read slices: JSON `{name: [image, ...]}`, or with right labels `{name: {image: [class, ...]}}`.

    Images are named by sample id or file name, classes by name or WordNet id.

    Raises: SettingsError, where the file cannot be read, or says something else.
    """
    value = read_json(path, SettingsError)
    if not isinstance(value, dict) or not value:
        raise SettingsError(f"{path}: slices are a JSON object {{name: [image, ...]}}")
    return tuple(_slice(name, images, f"{path}: slice {name!r}") for name, images in value.items())


def _slice(name: str, images: Any, place: str) -> Slice:
    if isinstance(images, dict) and images:
        return Slice(name=name, place=place, images=tuple(images), right=right_names(images, place))
    if not isinstance(images, list) or not images or not all(isinstance(image, str) for image in images):
        raise SettingsError(f"{place}: is a list of images, or an object {{image: [class, ...]}}, by sample id")
    if (repeat := first_repeat(images)) is not None:
        raise SettingsError(f"{place}: {repeat!r} stands twice")
    return Slice(name=name, place=place, images=tuple(images))


def slice_details(
    evaluation: Evaluation, slices: Sequence[Slice], sets: LabelSets | None = None
) -> list[dict[str, Any]]:
    """What a model does on each slice, ready for JSON.

    Args:
        evaluation: predictions.
        slices: parts of the images.
        sets: right labels for slices that have none of their own.

    Returns: for each slice `name`, `images` (how many of it are in the data), `absent` (how many are not), `top1`, and
        `errors`, each with `id`, `right` and `predicted`. Where right labels are known also `multilabel_top1` and
        `left_out`, as `label_set_details` has it; errors are then those of its images that are judged.

    Raises: SettingsError, as `check_slices`.
    """
    check_slices(slices, evaluation.ids, evaluation.classes)
    right = None if sets is None else right_classes(sets, evaluation.ids, evaluation.classes)
    return [_details(evaluation, each, right) for each in slices]


def check_slices(slices: Sequence[Slice], ids: Sequence[str], classes: tuple[str, ...]) -> None:
    """Find every error in slices before there are predictions.

    Args:
        slices: of the data, at least one.
        ids: N sample ids.
        classes: names of the classes that are scored.

    Raises: SettingsError, where no slice has an image of the data, or as `right_classes`.
    """
    every = {image: None for each in slices for image in each.images}
    require_some(matched(every, ids, "slices", one_each=False), every, ids, slices[0].place)
    for each in slices:
        keys = matched(frozenset(each.images), ids, each.place)
        there = [sample_id for key, sample_id in zip(keys, ids, strict=True) if key is not None]
        if each.right is not None and there:
            right_classes(LabelSets(place=each.place, names=each.right), there, classes)


def _details(evaluation: Evaluation, of: Slice, right: RightClasses | None) -> dict[str, Any]:
    keys = matched(frozenset(of.images), evaluation.ids, of.place)
    places = [place for place, key in enumerate(keys) if key is not None]
    found: dict[str, Any] = {"name": of.name, "images": len(places), "absent": len(of.images) - len(places)}
    if not places:
        return {**found, "top1": figure(None, 0), "errors": []}
    part = _part(evaluation, places)
    found["top1"] = part.figures["top1"]
    if of.right is not None:
        told = right_classes(LabelSets(place=of.place, names=of.right), part.ids, part.classes)
    elif right is not None:
        told = right.of(places)
    else:
        return {**found, "errors": _errors(part)}
    share = multilabel_top1(predicted_classes(part), told.numbers)
    return {**found, "multilabel_top1": share, "left_out": told.left_out(), "errors": multilabel_errors(part, told)}


def _part(evaluation: Evaluation, places: list[int]) -> Evaluation:
    """What the model said of the samples at `places` alone."""
    logits_NC, labels_N = torch.from_numpy(evaluation.logits[places]), torch.from_numpy(evaluation.labels[places])
    predicted = Predicted(logits_NC, labels_N, tuple(evaluation.ids[place] for place in places))
    return Evaluation.of(predicted, evaluation.classes)


def _errors(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The samples whose likeliest class is not their label's: `id`, `right` and `predicted`, by name."""
    own = tuple(frozenset([label]) for label in evaluation.labels.tolist())
    names = tuple(frozenset([evaluation.classes[label]]) for label in evaluation.labels.tolist())
    return multilabel_errors(evaluation, RightClasses(names=names, numbers=own))

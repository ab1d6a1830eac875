"""All that is measured of a model, by one pass over the images or by the full suite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buttress.metrics.clean import clean_details, clean_figures
from buttress.metrics.cost import measure_cost
from buttress.metrics.evaluate import Evaluation
from buttress.metrics.intervals import Figure
from buttress.metrics.label_sets import LabelSets, label_set_details, label_set_figures, right_classes
from buttress.metrics.robustness import decodable, errors_against, sampled, score_corrupted
from buttress.metrics.scale import score_scales
from buttress.metrics.score import Scoring, note_cut, score, scored_classes
from buttress.metrics.shift import score_shifted
from buttress.metrics.slices import Slice, check_slices, slice_details
from buttress.models.load import LoadedModel
from buttress.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSuite:
    """What the full suite looks at beyond the images as they are.

    Args:
        samples: images that are corrupted, moved and resized, as many of each class as can be.
        seed: of which images these are, and of their corruptions; 0 or more, below 2^63.
        baseline: the `details["corruptions"]` of another model's full suite on the same images, for mCE.
        weights_file: whose size is told.
        compiled: also time the model as `torch.compile` makes it.
    """

    samples: int = 100
    seed: int = 0
    baseline: Mapping[str, Any] | None = None
    weights_file: Path | None = None
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found of a model.

    Args:
        figures: each with value, count, low and high; docs/evaluate.md lists them.
        details: what is more than one number, ready for JSON.
        evaluation: the predictions that the clean figures come from.
    """

    figures: Mapping[str, Figure]
    details: Mapping[str, Any]
    evaluation: Evaluation

    def identity(self) -> dict[str, str]:
        """What says that another evaluation is of the same: digests of the scored `classes`, and of the `labels` that
        the images have by their ids.
        """
        names = self.evaluation.classes
        labels = [names[label] for label in self.evaluation.labels.tolist()]
        pairs = sorted(zip(self.evaluation.ids, labels, strict=True))
        return {"classes": classes_digest(names), "labels": _digest(pairs)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truths:
    """What is known of the images beside their labels.

    Args:
        sets: several right labels an image.
        slices: named parts of the images.
    """

    sets: LabelSets | None = None
    slices: tuple[Slice, ...] = ()

    def check(self, ids: Sequence[str], classes: tuple[str, ...]) -> None:
        """Find every error in them before the work.

        Raises: SettingsError, as `right_classes` and `slice_details`.
        """
        if self.sets is not None:
            right_classes(self.sets, ids, classes)
        if self.slices:
            check_slices(self.slices, ids, classes)


def judge(
    loaded: LoadedModel, source: Source, how: Scoring, *, full: FullSuite | None = None, truths: Truths | None = None
) -> Judgement:
    """Score a model on the images as they are, and with `full` also corrupted, moved and resized, and its cost.

    Raises: SourceError, ModelError, SettingsError: as `score`, `right_classes` and `slice_details`.
    """
    chosen = scored_classes(loaded, source, how.class_map)
    assert chosen.classes is not None
    truths = truths or Truths()
    truths.check(source.ids, chosen.classes)
    note_cut(loaded, chosen)
    evaluation = score(loaded, source, how)
    figures, details = clean_figures(evaluation), clean_details(evaluation)
    if truths.sets is not None:
        figures |= label_set_figures(evaluation, truths.sets)
        details["label_sets"] = label_set_details(evaluation, truths.sets)
    if truths.slices:
        details["slices"] = slice_details(evaluation, truths.slices, truths.sets)
    if full is not None:
        cost = measure_cost(loaded, weights_file=full.weights_file, compiled=full.compiled)
        figures |= cost.figures()
        details |= {"cost": cost.details(), "macs_leave_out": list(cost.unseen)}
        part = sampled(decodable(source, evaluation.ids), full.samples, full.seed)
        found = score_corrupted(loaded, part, how, seed=full.seed)
        figures |= found.figures()
        if full.baseline is not None:
            figures |= errors_against(found, full.baseline)
        figures |= score_shifted(loaded, part, how).figures()
        details |= {"corruptions": found.details(), "scales": score_scales(loaded, part, how)}
    return Judgement(figures, details, evaluation)


def classes_digest(classes: Sequence[str]) -> str:
    """Of the names of classes in any order."""
    return _digest(sorted(classes))


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=8).hexdigest()

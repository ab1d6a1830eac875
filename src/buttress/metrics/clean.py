"""All that one pass over labelled images tells of a model. Shapes: N samples, C classes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from buttress.metrics.accuracy import row_chunks
from buttress.metrics.adaptive_ece import adaptive_calibration_error
from buttress.metrics.brier import brier_scores
from buttress.metrics.calibration import BINS, reliability_bins, top1
from buttress.metrics.class_accuracy import balanced_accuracy, class_hits
from buttress.metrics.classwise_ece import classwise_calibration_error
from buttress.metrics.confusion import confused_pairs
from buttress.metrics.evaluate import Evaluation
from buttress.metrics.intervals import Figure, Statistic, bootstrap, figure, fraction, mean_of
from buttress.metrics.risk_coverage import risk_coverage
from buttress.metrics.temperature import best_temperature, cross_fitted
from buttress.sources.identity import id_hashes

CONFUSED = 20  # pairs of classes
TIE = 1e-4


def main_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """top1, top5, nll and ece of saved predictions, with the very intervals that `clean_figures` gives them."""
    logits_NC, labels_N = torch.from_numpy(evaluation.logits), torch.from_numpy(evaluation.labels)
    confidence_N, predicted_N = top1(logits_NC)
    statistics = {
        "nll": mean_of(_losses(logits_NC, labels_N).numpy()),
        "ece": _ece(confidence_N, predicted_N == labels_N),
    }
    return {**evaluation.figures, **bootstrap(statistics, len(labels_N), limits={"nll": math.inf})}


def clean_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """Every figure of saved predictions, with its interval where there is one.

    Beside those of the evaluation: balanced_accuracy, brier, ece_adaptive, ece_classwise, aurc, the temperature of the
    least NLL on these images, and nll_scaled and ece_scaled: each half of the images, by the hash of the id, over the
    temperature of the other half. These have no value where no temperature is best (`best_temperature`).
    """
    logits_NC, labels_N = torch.from_numpy(evaluation.logits), torch.from_numpy(evaluation.labels)
    count = len(labels_N)
    confidence_N, predicted_N = top1(logits_NC)
    right_N = predicted_N == labels_N
    statistics: dict[str, Statistic] = {
        "nll": mean_of(_losses(logits_NC, labels_N).numpy()),
        "ece": _ece(confidence_N, right_N),
        "balanced_accuracy": partial(balanced_accuracy, labels_N.numpy(), right_N.numpy()),
        "brier": mean_of(brier_scores(logits_NC, labels_N).numpy()),
        "aurc": _aurc(confidence_N, right_N),
    }
    first_N = torch.from_numpy(id_hashes(evaluation.ids) % 2 == 0)
    scaled_NC = cross_fitted(logits_NC, labels_N, first_N)
    if scaled_NC is not None:
        statistics["nll_scaled"] = mean_of(_losses(scaled_NC, labels_N).numpy())
        scaled_confidence_N, _ = top1(scaled_NC)
        statistics["ece_scaled"] = _ece(scaled_confidence_N, right_N)
    return {
        **evaluation.figures,
        **{name: figure(None, count) for name in ("nll_scaled", "ece_scaled")},
        **bootstrap(statistics, count, limits={"nll": math.inf, "nll_scaled": math.inf, "brier": 2.0}),
        "ece_adaptive": figure(adaptive_calibration_error(confidence_N, right_N), count),
        "ece_classwise": figure(classwise_calibration_error(logits_NC, labels_N), count),
        "temperature": figure(best_temperature(logits_NC, labels_N), count),
    }


def clean_details(evaluation: Evaluation) -> dict[str, Any]:
    """What is more than one number: `classes`, `confused`, `reliability`, `risk_coverage` and `ties`, ready for JSON.

    Ties are the images whose two best logits are within 1e-4: there another batch size may give the other class.
    """
    classes = evaluation.classes
    logits_NC, labels_N = torch.from_numpy(evaluation.logits), torch.from_numpy(evaluation.labels)
    confidence_N, predicted_N = top1(logits_NC)
    hits = class_hits(predicted_N, labels_N, len(classes))
    curve = risk_coverage(confidence_N, predicted_N == labels_N)
    return {
        "classes": {
            name: fraction(right, images)
            for name, right, images in zip(classes, hits.right_C.tolist(), hits.count_C.tolist(), strict=True)
            if images
        },
        "confused": [
            {
                "truth": classes[pair.truth],
                "predicted": classes[pair.predicted],
                "images": pair.images,
                "ids": [evaluation.ids[place] for place in pair.places],
            }
            for pair in confused_pairs(predicted_N, labels_N, len(classes), CONFUSED)
        ],
        "reliability": [
            {
                "low": each.low,
                "high": each.high,
                "images": each.count,
                "confidence": each.confidence,
                "top1": each.accuracy,
            }
            for each in reliability_bins(logits_NC, labels_N)
        ],
        "risk_coverage": {"coverage": list(curve.coverage), "risk": list(curve.risk)},
        "ties": [evaluation.ids[place] for place in _ties(logits_NC)],
    }


def _ties(logits_NC: Tensor) -> list[int]:
    if logits_NC.shape[1] < 2:
        return []
    best_N2 = logits_NC.topk(2, dim=1).values
    return torch.nonzero(best_N2[:, 0] - best_N2[:, 1] <= TIE)[:, 0].tolist()


def _losses(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """-log softmax(logits)[label] of each sample, float64 [N], in nat."""
    rows = row_chunks(logits_NC, labels_N)
    return torch.cat([functional.cross_entropy(logits.double(), labels, reduction="none") for logits, labels in rows])


def _ece(confidence_N: Tensor, right_N: Tensor) -> Statistic:
    bin_N = (torch.bucketize(confidence_N, torch.linspace(0, 1, BINS + 1), right=True) - 1).numpy()
    gap_N = (right_N.double() - confidence_N.double()).numpy()
    return lambda times_N: float(np.abs(np.bincount(bin_N, times_N * gap_N)).sum()) / len(gap_N)


def _aurc(confidence_N: Tensor, right_N: Tensor) -> Statistic:
    """As `risk_coverage` has it, samples of one confidence in a random order of theirs."""
    order_N = confidence_N.argsort(descending=True).numpy()
    _, group_N = np.unique(-confidence_N.numpy()[order_N], return_inverse=True)
    wrong_N = (~right_N).numpy()[order_N].astype(np.float64)
    rank_N = np.arange(1, len(order_N) + 1)

    def statistic(times_N: NDArray[np.int64]) -> float:
        drawn_N = np.repeat(rank_N - 1, times_N[order_N])
        groups_N = group_N[drawn_N]
        means = np.bincount(groups_N, wrong_N[drawn_N]) / np.maximum(np.bincount(groups_N), 1)
        return float((np.cumsum(means[groups_N]) / rank_N).mean())

    return statistic

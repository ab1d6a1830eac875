"""Score a model on labelled images. Shapes: B batch, N samples, C classes of the data, M classes of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from buttress.errors import ModelError, SourceError
from buttress.loading.targets import Batch
from buttress.metrics.accuracy import top_k_hits
from buttress.metrics.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)
from buttress.metrics.intervals import Figure, figure, fraction
from buttress.models.normalise import normalise
from buttress.models.preprocessing import Preprocessing


class Predicted(NamedTuple):
    """What a model said of N labelled images: logits float32 [N, C], labels int64 [N] and ids."""

    logits_NC: Tensor
    labels_N: Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of a model, with the predictions they come from.

    Args:
        figures: top1, top5, nll (nat) and ece, each with value, count, low and high. top5 has no value below 5 classes.
        logits: float32 [N, C], over the classes that were scored.
        labels: int64 [N].
        ids: the N sample ids.
        classes: names of the C classes.
    """

    figures: dict[str, Figure]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, predicted: Predicted, classes: tuple[str, ...]) -> Evaluation:
        """Score what a model said over these classes.

        Raises:
            SourceError: no image has a label.
        """
        if not predicted.ids:
            raise SourceError("nothing to evaluate: no image has a label; point --data at images in class sub-folders")
        logits_NC, labels_N = predicted.logits_NC.numpy(), predicted.labels_N.numpy()
        return cls(figures_of(logits_NC, labels_N), logits_NC, labels_N, predicted.ids, classes)

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """The bins of the reliability diagram."""
        return reliability_bins(torch.from_numpy(self.logits), torch.from_numpy(self.labels))


def predictions(
    module: nn.Module,
    loader: Iterable[Batch],
    *,
    preprocessing: Preprocessing,
    classes: int,
    device: torch.device | str | None = None,
    class_map: Sequence[Sequence[int]] | None = None,
) -> Predicted:
    """Run `module` over `loader` once, in fp32 and evaluation mode. Images without a label are left out.

    Args:
        module: images float32 [B, 3, H, W] -> logits [B, M]; its mode and device are put back afterwards.
        loader: batches with hard labels; the last may be smaller.
        preprocessing: mean and std of the model's input.
        classes: C, how many the labels may name.
        device: where to run; none = where the module is.
        class_map: for each class of the data the model's classes, whose probabilities are summed; the others are
            renormalised away. None where the classes are the same (M = C).

    Raises:
        ModelError: the model has another number of classes, or gives a logit that is not finite.
    """
    logits: list[Tensor] = [torch.zeros(0, classes)]
    labels: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
    ids: list[str] = []
    with evaluating(module, device):
        for batch in loader:
            assert isinstance(batch.targets, Tensor), "evaluation needs hard labels"
            logits_BC = batch_logits(module, batch, preprocessing, classes, class_map)
            kept = torch.nonzero(batch.targets >= 0)[:, 0]
            logits.append(logits_BC[kept])
            labels.append(batch.targets[kept])
            ids += [batch.ids[i] for i in kept.tolist()]
    return Predicted(torch.cat(logits), torch.cat(labels), tuple(ids))


def figures_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Figure]:
    """top1, top5, nll and ece of saved predictions: float32 [N, C] and int64 [N]."""
    logits_NC, labels_N = torch.from_numpy(logits), torch.from_numpy(labels)
    count, classes = logits_NC.shape
    return {
        "top1": fraction(top_k_hits(logits_NC, labels_N, 1), count),
        "top5": fraction(top_k_hits(logits_NC, labels_N, 5), count) if classes >= 5 else figure(None, count),
        "nll": figure(negative_log_likelihood(logits_NC, labels_N), count),
        "ece": figure(expected_calibration_error(logits_NC, labels_N), count),
    }


@contextmanager
def evaluating(module: nn.Module, device: torch.device | str | None = None) -> Iterator[None]:
    """The state that models are scored in: evaluation mode, fp32, no gradients; put back afterwards.

    Args:
        module: the network.
        device: where to run; none = where the module is.
    """
    before, was_training = next(module.parameters()).device, module.training
    module.eval().to(before if device is None else device)
    try:
        with torch.inference_mode(), _full_fp32():
            yield
    finally:
        module.train(was_training).to(before)


@contextmanager
def _full_fp32() -> Iterator[None]:
    """No TF32 in convolutions and products of matrices: it keeps 10 bits of fp32's 23, and GPUs would differ."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def batch_logits(
    module: nn.Module,
    batch: Batch,
    preprocessing: Preprocessing,
    classes: int,
    class_map: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Logits float32 [B, C] of a batch, on the CPU; see `predictions` for the arguments.

    Raises:
        ModelError: the model has another number of classes, or gives a logit that is not finite.
    """
    device = next(module.parameters()).device
    logits_BM: Tensor = module(normalise(batch.images.to(device), preprocessing)).float().cpu()
    logits_BC = _mapped(logits_BM, classes, class_map)
    _require_finite(logits_BC, batch.ids)
    return logits_BC


def _mapped(logits_BM: Tensor, classes: int, class_map: Sequence[Sequence[int]] | None) -> Tensor:
    outputs = logits_BM.shape[1]
    if class_map is None:
        if outputs != classes:
            raise ModelError(f"the model has {outputs} classes, the data {classes}; give a --class-map")
        return logits_BM
    if max(map(max, class_map)) >= outputs:
        raise ModelError(f"the class map names class {max(map(max, class_map))}, the model has only {outputs}")
    return torch.stack([logits_BM[:, list(group)].logsumexp(dim=1) for group in class_map], dim=1)


def _require_finite(logits_BC: Tensor, ids: tuple[str, ...]) -> None:
    bad = torch.nonzero(~torch.isfinite(logits_BC).all(dim=1))[:, 0].tolist()
    if bad:
        raise ModelError(
            f"{ids[bad[0]]}: the model gives a logit that is not finite; its weights or this image are broken"
        )

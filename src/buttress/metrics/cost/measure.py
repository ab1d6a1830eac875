"""What a model costs: size, arithmetic, memory and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from buttress.errors import ModelError
from buttress.metrics.cost.counts import (
    multiply_accumulates,
    parameter_count,
    peak_activations,
    state_bytes,
    unseen_operations,
)
from buttress.metrics.cost.onnx_runtime import root_of
from buttress.metrics.cost.timing import RUNS, WARM_UP, median_of, seconds_of
from buttress.metrics.cost.variants import VARIANTS, NotMeasuredError, Way, device_name
from buttress.metrics.evaluate import evaluating
from buttress.metrics.intervals import Figure, figure
from buttress.metrics.score import evaluation_device
from buttress.models.load import LoadedModel
from buttress.terminal import Progress, progress, warn

BATCH = 64  # of a graphics card; a processor takes as many of them as `PASS_MACS` allows
PASS_MACS = 8 * 10**9
TOLERANCE = 1e-3
COMPILED = "compiled"
UNCOUNTED = ("rnn", "lstm", "gru")  # in the names of operations that do products of matrices and have no count
FAILURES = (
    AssertionError,
    ValueError,
    TypeError,
    RuntimeError,
    IndexError,
)  # of a forward; no memory is a RuntimeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How long a variant took for a batch.

    variant: `eager`, `channels_last`, `compiled` or `onnxruntime`. batch: images per pass. threads: that torch uses.
    device: the model of the processor or graphics card.
    runs: seconds of each timed run; none where there is a `not_measured`, which says why.
    difference: the largest between its logits and those of eager; none where nothing ran or one is not finite.
    agrees: whether that is at most 0.001 times the largest logit or 1, whichever is larger.
    """

    variant: str
    batch: int
    threads: int
    device: str
    runs: tuple[float, ...] = ()
    difference: float | None = None
    agrees: bool | None = None
    not_measured: str | None = None

    def details(self) -> dict[str, Any]:
        """The same with the seconds as a figure, ready for JSON."""
        fields = {name: value for name, value in asdict(self).items() if name != "runs"}
        return {**fields, "seconds": median_of(self.runs)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a model costs at its size.

    parameters: how many, shared ones once. bytes: of the weights as they are stored, none where they have no file.
    macs: multiply-accumulates of one image, in convolutions and products of matrices; none where a recurrent layer,
        which is one operation without a count, does a part of the work.
    unseen: names of the operations that `macs` leaves out.
    peak_memory: the most bytes that one image and what is computed from it take at a time in an eager pass.
    timings: of each variant and batch, smaller batches first; those of eager come first.
    """

    parameters: int
    bytes: int | None
    macs: int | None
    unseen: tuple[str, ...]
    peak_memory: int
    timings: tuple[Timing, ...]

    def figures(self) -> dict[str, Figure]:
        """`parameters`, `bytes`, `macs`, `peak_memory`; of eager `latency` (s, batch 1) and `throughput` (images/s).

        Of the last two, `count` is how many runs there were, low and high are their 5th and 95th percentile.
        """
        own = [timing for timing in self.timings if timing.variant == "eager"]
        rates = tuple(own[-1].batch / seconds for seconds in own[-1].runs)
        return {
            "parameters": figure(self.parameters, 1),
            "bytes": figure(self.bytes, 1),
            "macs": figure(self.macs, 1),
            "peak_memory": figure(self.peak_memory, 1),
            "latency": median_of(own[0].runs),
            "throughput": median_of(rates),
        }

    def details(self) -> list[dict[str, Any]]:
        """Every variant and batch, ready for JSON."""
        return [timing.details() for timing in self.timings]


class Counts(NamedTuple):
    """What a model costs on every machine; see `Cost`. bytes: of the weights as they are stored, else in memory."""

    parameters: int
    bytes: int
    macs: int | None


def count_cost(loaded: LoadedModel) -> Counts:
    """Count what a model needs, and time nothing. The model is left as it was.

    Args:
        loaded: the model; a custom one takes float32 [1, 3, S, S] at its own size S.

    Raises:
        ModelError: the model cannot run on such an image.
    """
    device = torch.device(evaluation_device())
    with evaluating(loaded.module, device):
        image = _images(1, loaded.preprocessing.size).to(device)
        _first_look(loaded, image)
        macs, unseen = multiply_accumulates(loaded.module, image), unseen_operations(loaded.module, image)
    return Counts(
        parameters=parameter_count(loaded.module),
        bytes=state_bytes(loaded.module) if loaded.stored_bytes is None else loaded.stored_bytes,
        macs=_if_counted(macs, unseen),
    )


def _if_counted(macs: int, unseen: Sequence[str]) -> int | None:
    """None where an operation that nobody counts did a part of the work."""
    return None if any(name in each for each in unseen for name in UNCOUNTED) else macs


def measure_cost(
    loaded: LoadedModel, *, weights_file: Path | None, batch: int | None = None, compiled: bool = False
) -> Cost:
    """Count what a model needs, and time it for one image and for a batch, in fp32, on the GPU where there is one.

    It is run eagerly, in channels_last, and by ONNX Runtime where that is installed. The model is left as it was.

    Args:
        loaded: the model; a custom one takes float32 [B, 3, S, S] at its own size S.
        weights_file: whose size counts; of a compressed run its packed weights do (`LoadedModel.stored_bytes`).
        batch: images of the larger batch, at least 1; none = 64, on a processor the largest power of two up to that
            which keeps a pass within 8 G multiply-accumulates.
        compiled: also time `torch.compile`, which takes minutes on few cores.

    Raises:
        ModelError: the model cannot run on such images, or there is no such file.
    """
    device = torch.device(evaluation_device())
    size = loaded.preprocessing.size
    file_bytes = None if weights_file is None else _file_bytes(weights_file)
    with evaluating(loaded.module, device):
        image = _images(1, size).to(device)
        logits_1C = _first_look(loaded, image)
        macs = multiply_accumulates(loaded.module, image)
        unseen = unseen_operations(loaded.module, image)
        peak = peak_activations(loaded.module, image)
    del image, logits_1C
    batches = sorted({1, batch or _batch(macs, device)})
    names = [name for name in VARIANTS if compiled or name != COMPILED]
    return Cost(
        parameters=parameter_count(loaded.module),
        bytes=file_bytes if loaded.stored_bytes is None else loaded.stored_bytes,
        macs=_if_counted(macs, unseen),
        unseen=unseen,
        peak_memory=peak,
        timings=(*_timings(loaded, names, batches, device), *(() if compiled else _not_asked(batches, device))),
    )


def _not_asked(batches: Sequence[int], device: torch.device) -> list[Timing]:
    why = "compiling takes minutes on few cores; ask for it by --compiled"
    threads, name = torch.get_num_threads(), device_name(device)
    return [Timing(variant=COMPILED, batch=batch, threads=threads, device=name, not_measured=why) for batch in batches]


def _file_bytes(file: Path) -> int:
    if not file.is_file():
        raise ModelError(f"{file}: no such weights file")
    return file.stat().st_size


def _images(count: int, size: int) -> Tensor:
    """The same normal noise every time, float32 [count, 3, size, size]."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def _first_look(loaded: LoadedModel, image_1CHW: Tensor) -> Tensor:
    size = loaded.preprocessing.size
    try:
        logits = loaded.module(image_1CHW)
    except FAILURES as failure:
        raise ModelError(
            f"{loaded.uri}: cannot run on one image, float32 [1, 3, {size}, {size}] ({' '.join(str(failure).split())})"
        ) from failure
    if not isinstance(logits, Tensor):
        raise ModelError(f"{loaded.uri}: gives a {type(logits).__name__}; its cost needs logits, a tensor [B, C]")
    return logits


def _batch(macs: int, device: torch.device) -> int:
    """Not by the clock: what is measured is to be the same on a busy machine."""
    if device.type != "cpu":
        return BATCH
    fit = max(PASS_MACS // max(macs, 1), 1)
    return int(min(2 ** int(math.log2(fit)), BATCH))


def _timings(loaded: LoadedModel, names: Sequence[str], batches: Sequence[int], device: torch.device) -> list[Timing]:
    total = len(names) * len(batches) * (WARM_UP + RUNS)
    found: list[Timing] = []
    answers: dict[int, Tensor] = {}
    with progress("cost", total, "runs") as bar:
        for name in names:
            bar.update(name)
            found += _of_variant(loaded, name, batches, device, answers, bar)
    for timing in found:
        if timing.agrees is False:
            by = "are not finite" if timing.difference is None else f"differ from eager's by {timing.difference:.2g}"
            warn(f"{loaded.uri}: {timing.variant}, batch {timing.batch}: the logits {by}")
    return found


def _of_variant(
    loaded: LoadedModel,
    name: str,
    batches: Sequence[int],
    device: torch.device,
    answers: dict[int, Tensor],
    bar: Progress,
) -> list[Timing]:
    """answers: batch -> the logits of eager, which are put in where there are none."""
    size, threads = loaded.preprocessing.size, torch.get_num_threads()
    found: list[Timing] = []
    try:
        with VARIANTS[name](loaded.module, device, size) as way:
            for batch in batches:
                runs, logits_BC = _timed(way, _images(batch, size), bar)
                if name == "eager":
                    answers[batch] = logits_BC
                difference, agrees = _compared(logits_BC, answers.get(batch))
                found.append(
                    Timing(
                        variant=name,
                        batch=batch,
                        threads=threads,
                        device=device_name(way.device),
                        runs=runs,
                        difference=difference,
                        agrees=agrees,
                    )
                )
    except NotMeasuredError as why:
        left = batches[len(found) :]
        bar.advance(len(left) * (WARM_UP + RUNS))
        for batch in left:
            found.append(
                Timing(variant=name, batch=batch, threads=threads, device=device_name(device), not_measured=str(why))
            )
    return found


def _timed(way: Way, images_BCHW: Tensor, bar: Progress) -> tuple[tuple[float, ...], Tensor]:
    """The seconds of its runs, and its logits [B, C] on the CPU.

    Raises:
        NotMeasuredError: the variant or the model cannot do it, or it does not fit into the memory.
    """
    try:
        placed = images_BCHW.to(way.device).contiguous(memory_format=way.memory_format)
        logits_BC = way.run(placed).float().cpu()
        return seconds_of(lambda: way.run(placed), way.device, bar=bar), logits_BC
    except FAILURES as failure:
        raise NotMeasuredError(f"a batch of {len(images_BCHW)} fails ({root_of(failure)})") from failure


def _compared(logits_BC: Tensor, eager_BC: Tensor | None) -> tuple[float | None, bool | None]:
    if eager_BC is None:
        return None, None
    difference = float((logits_BC - eager_BC).abs().max())
    if not math.isfinite(difference):
        return None, False
    return difference, difference <= TOLERANCE * max(1.0, float(eager_BC.abs().max()))

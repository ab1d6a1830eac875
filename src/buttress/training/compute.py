"""How a step is computed: precision, compilation, determinism."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from buttress.errors import SettingsError, TrainingError
from buttress.models.load import LoadedModel
from buttress.models.processor import cpu_has_bf16
from buttress.terminal import note
from buttress.training.settings import Precision, TrainingSettings

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
MEASURED_BATCH, MEASURED_STEPS = 32, 3  # of `fastest`; one more warms up


def resolve_precision(asked: Precision) -> Literal["fp32", "bf16", "fp16"]:
    """`auto` is bf16 on a GPU that multiplies it itself, else fp32, and so is `fastest` where nothing was measured.

    Raises:
        SettingsError: fp16 without a GPU.
    """
    if asked == "fp16" and not torch.cuda.is_available():
        raise SettingsError("precision = fp16: needs a GPU; take bf16 or fp32 on a CPU")
    if asked != "auto" and asked != "fastest":
        return asked
    # Without this argument torch counts a GPU that only emulates bf16, many times slower than fp32.
    native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


def fastest_step(loaded: LoadedModel, settings: TrainingSettings) -> TrainingSettings:
    """Precision and memory format in which a step of this model is fastest on this CPU, measured, and told.

    On a GPU, and for several processes, which must not differ, the settings stay as they are.
    """
    if torch.cuda.is_available() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        note("precision = fastest: measured for one process on a CPU alone; here it is as auto")
        return settings
    seconds = {
        (precision, channels_last): _step_seconds(loaded, settings.batch, precision, channels_last)
        for precision in (PRECISIONS if cpu_has_bf16() else PRECISIONS[:1])
        for channels_last in (True, False)
    }
    best = min(seconds, key=lambda way: seconds[way])
    told = [(f"{way[0]} {'channels_last' if way[1] else 'contiguous'}", 1e3 * each) for way, each in seconds.items()]
    told.sort(key=lambda pair: pair[1])
    listed = ", ".join(f"{name} {each:.2f}" for name, each in told)
    note(f"{told[0][0]} is fastest (ms an image: {listed}); --precision fp32 or bf16 chooses by hand")
    return replace(settings, precision=best[0], engine=replace(settings.engine, channels_last=best[1]))


def _step_seconds(loaded: LoadedModel, batch: int, precision: Precision, channels_last: bool) -> float:
    """Of a forward and a backward pass, an image, on the clock, for all threads count; the model stays as it is."""
    count, size = min(batch, MEASURED_BATCH), loaded.preprocessing.size
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    model, spent = copy.deepcopy(loaded.module).train().to(memory_format=layout), []
    with torch.random.fork_rng(devices=[]), batch_large_enough(0, count):
        for _ in range(1 + MEASURED_STEPS):
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = model(images).float().square().mean()
            loss.backward()
            spent.append((time.perf_counter() - started) / count)
    return min(spent[1:])


def compiled(model: nn.Module, *, methods: bool) -> Callable[[Tensor], Tensor]:
    """The model by torch.compile; itself, with a note, where that cannot be."""
    if methods:
        note("torch.compile: not used, a method changes the model between passes")
        return model
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=next(model.parameters()).device))
    except (RuntimeError, OSError) as failure:  # what torch raises where it finds no compiler, or one that fails
        lines = str(failure).strip().splitlines() or [type(failure).__name__]
        note(f"torch.compile: not used ({lines[0]})")
        return model
    faster: Callable[[Tensor], Tensor] = torch.compile(model)
    return faster


@contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """Only algorithms that give the same bits again."""
    if not asked:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def batch_large_enough(step: int, count: int) -> Iterator[None]:
    """Say what to do where batch normalisation has one value per channel: one image whose map is 1 x 1 by then."""
    try:
        yield
    except ValueError as failure:
        if "Expected more than 1 value per channel" not in str(failure):
            raise
        raise TrainingError(
            f"step {step}: a batch of {count} image is too small for this model's batch normalisation; raise --batch, "
            "--engine.micro_batch or --size, or add images (an image that cannot be decoded makes its batch smaller)"
        ) from failure


@contextmanager
def without_autocast(module: nn.Module) -> Iterator[None]:
    """Accelerate replaces `module.forward` by one that runs in bf16; evaluation is in fp32."""
    replaced = module.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if replaced is not None:
            module.forward = replaced

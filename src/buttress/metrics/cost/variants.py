"""The ways a model can be run that are timed. Each is a context that gives a `Way` and leaves the model as it was."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn

from buttress.metrics.cost.onnx_runtime import OnnxError, Session, missing_packages, root_of, to_onnx
from buttress.metrics.evaluate import evaluating


class NotMeasuredError(Exception):
    """Why a variant could not be timed here, in one line."""

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.split()))


class Way(NamedTuple):
    """A model ready to run.

    run: float32 [B, 3, S, S] in `memory_format`, on `device` -> logits [B, C].
    """

    run: Callable[[Tensor], Tensor]
    device: torch.device
    memory_format: torch.memory_format = torch.contiguous_format


@contextmanager
def eager(module: nn.Module, device: torch.device, size: int) -> Iterator[Way]:
    """As the figures of accuracy are measured."""
    with evaluating(module, device):
        yield Way(module, device)


@contextmanager
def channels_last(module: nn.Module, device: torch.device, size: int) -> Iterator[Way]:
    """Weights and images with the channels of a pixel side by side."""
    before = [(parameter, parameter.data) for parameter in module.parameters()]
    buffers = [(owner, name, tensor) for owner in module.modules() for name, tensor in owner._buffers.items()]
    module.to(memory_format=torch.channels_last)
    try:
        with evaluating(module, device):
            yield Way(module, device, torch.channels_last)
    finally:
        for parameter, data in before:
            parameter.data = data
        for owner, name, tensor in buffers:
            owner._buffers[name] = tensor


@contextmanager
def compiled(module: nn.Module, device: torch.device, size: int) -> Iterator[Way]:
    """By `torch.compile`, for each batch size by itself."""
    torch.compiler.reset()  # it gives up, silently, on the ninth network of a class
    whole: Callable[[Tensor], Tensor] = torch.compile(module, dynamic=False)

    def run(images_BCHW: Tensor) -> Tensor:
        try:
            return whole(images_BCHW)
        except RuntimeError as failure:  # all of the compiler's are
            raise NotMeasuredError(_why_not_compiled(failure)) from failure

    try:
        with evaluating(module, device):
            yield Way(run, device)
    finally:
        torch.compiler.reset()


def _why_not_compiled(failure: RuntimeError) -> str:
    if "InvalidCxxCompiler" in str(failure):
        return "no compiler; install g++ or name one in CXX"
    return f"torch.compile fails ({root_of(failure)})"


@contextmanager
def onnxruntime(module: nn.Module, device: torch.device, size: int) -> Iterator[Way]:
    """Exported by `torch.onnx`, run by ONNX Runtime, on the processor with as many threads as torch."""
    if missing := missing_packages():
        raise NotMeasuredError(f"pip install {' '.join(missing)}")
    with _folder() as folder:
        file = Path(folder, "model.onnx")
        try:
            to_onnx(module, size).save(file)
            session = Session(file)
        except OnnxError as failure:
            raise NotMeasuredError(str(failure)) from failure

        def run(images_BCHW: Tensor) -> Tensor:
            try:
                return session(images_BCHW)
            except OnnxError as failure:
                raise NotMeasuredError(str(failure)) from failure

        yield Way(run, torch.device("cpu"))


@contextmanager
def _folder() -> Iterator[str]:
    try:
        with TemporaryDirectory() as folder:
            yield folder
    except (ImportError, OSError) as failure:
        raise NotMeasuredError(f"ONNX Runtime fails ({root_of(failure)})") from failure


VARIANTS: dict[str, Callable[[nn.Module, torch.device, int], AbstractContextManager[Way]]] = {
    "eager": eager,
    "channels_last": channels_last,
    "compiled": compiled,
    "onnxruntime": onnxruntime,
}


def device_name(device: torch.device) -> str:
    """What a reader calls it: the model of the graphics card or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"

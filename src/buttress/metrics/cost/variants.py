"""The ways a model can be run that are timed. Each is a context that gives a `Way` and leaves the model as it was."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from buttress.metrics.evaluate import evaluating

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


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


def root_of(failure: BaseException) -> str:
    """The first line of what an error came from: torch's own texts go on with advice to its developers."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__


@contextmanager
def onnxruntime(module: nn.Module, device: torch.device, size: int) -> Iterator[Way]:
    """Exported by `torch.onnx`, run by ONNX Runtime, on the processor with as many threads as torch."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise NotMeasuredError(f"pip install {' '.join(missing)}")
    with _folder() as folder:
        file = Path(folder, "model.onnx")
        _export(module, size, file)
        session = _session(file)
        (name,) = [each.name for each in session.get_inputs()]

        failures = _runtime_failures()

        def run(images_BCHW: Tensor) -> Tensor:
            try:
                return torch.from_numpy(session.run(None, {name: images_BCHW.numpy()})[0])
            except failures as failure:
                raise NotMeasuredError(f"ONNX Runtime fails ({root_of(failure)})") from failure

        yield Way(run, torch.device("cpu"))


@contextmanager
def _folder() -> Iterator[str]:
    try:
        with TemporaryDirectory() as folder:
            yield folder
    except (ImportError, OSError) as failure:
        raise NotMeasuredError(f"ONNX Runtime fails ({root_of(failure)})") from failure


def _export(module: nn.Module, size: int, file: Path) -> None:
    """Batches of any size; two images stand for them, as one would be taken for a constant."""
    before, was_training = next(module.parameters()).device, module.training
    try:
        with _silence():
            torch.onnx.export(
                module.eval().cpu(),
                (torch.zeros(2, 3, size, size),),
                file,
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
    except (RuntimeError, ImportError, OSError) as failure:  # all of the exporter's; packages at odds; a full disk
        raise NotMeasuredError(f"torch.onnx.export fails ({root_of(failure)})") from failure
    finally:
        module.train(was_training).to(before)


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter prints and logs whole graphs; what it has to say comes with its errors."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(before)


def _runtime_failures() -> tuple[type[Exception], ...]:
    """ONNX Runtime's errors, which have no class in common but `Exception`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception))


def _session(file: Path) -> Any:
    """
    Raises:
        NotMeasuredError: ONNX Runtime cannot run that file.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except _runtime_failures() as failure:
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

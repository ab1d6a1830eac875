"""Networks as ONNX graphs, made by `torch.onnx`, and ONNX Runtime, which runs them on the processor."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
IMAGES, LOGITS = "images", "logits"


class OnnxError(Exception):
    """Why a network cannot be exported or run, in one line."""

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.split()))


def missing_packages() -> list[str]:
    """Those that an export and a run need and that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def root_of(failure: BaseException) -> str:
    """The first line of what an error came from: torch's own texts go on with advice to its developers."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__


def to_onnx(module: nn.Module, size: int, *, opaque: Sequence[str] = ()) -> ONNXProgram:
    """The graph of a network in evaluation mode, input `images` [batch, 3, size, size], output `logits`.

    The batch may be of any size. The exporter folds batch norms into convolutions, and whatever is constant.

    Args:
        module: it comes back in its mode and on its device.
        size: of the images, in pixels.
        opaque: parameters that stay as they are: they are further inputs of the graph, of the same names.

    Raises:
        OnnxError: the exporter fails, or its packages do.
    """
    before, was_training = next(module.parameters()).device, module.training
    values = dict(module.eval().cpu().named_parameters())
    weights = tuple(values[name].detach() for name in opaque)
    # two images stand for a batch: one would be taken for a constant
    try:
        with _silence():
            program = torch.onnx.export(
                _WithWeights(module, opaque).eval() if opaque else module,
                (torch.zeros(2, 3, size, size), *weights),
                dynamo=True,
                dynamic_shapes=_batch_of_any_size(len(weights)),
                input_names=[IMAGES, *opaque],
                output_names=[LOGITS],
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None, "only a program that is written to a file is not returned"
            return program
    except (RuntimeError, ImportError, OSError) as failure:  # all of the exporter's; packages at odds; a full disk
        raise OnnxError(f"torch.onnx.export fails ({root_of(failure)})") from failure
    finally:
        module.train(was_training).to(before)


class Session:
    """A graph in ONNX Runtime, on the processor with as many threads as torch.

    Args:
        graph: its file, or its bytes.

    Raises:
        OnnxError: ONNX Runtime cannot run it.
    """

    def __init__(self, graph: Path | bytes) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self._failures = _runtime_failures()
        try:
            self._session = ort.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"]
            )
        except self._failures as failure:
            raise OnnxError(f"ONNX Runtime fails ({root_of(failure)})") from failure

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """The logits [B, C] of normalised images on the CPU.

        Raises:
            OnnxError: ONNX Runtime fails on them.
        """
        try:
            logits: Any = self._session.run([LOGITS], {IMAGES: images_BCHW.numpy()})[0]
        except self._failures as failure:
            raise OnnxError(f"ONNX Runtime fails ({root_of(failure)})") from failure
        return torch.from_numpy(logits)


class _WithWeights(nn.Module):
    """A network some of whose parameters are arguments."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, tuple(names)

    def forward(self, images_BCHW: Tensor, *weights: Tensor) -> Any:
        return torch.func.functional_call(self.module, dict(zip(self.names, weights, strict=True)), (images_BCHW,))


def _batch_of_any_size(others: int) -> Any:
    """One for each argument; all but the first of `_WithWeights` are one tuple to the exporter."""
    return ({0: "batch"}, ({},) * others) if others else ({0: "batch"},)


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

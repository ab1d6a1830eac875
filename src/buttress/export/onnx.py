"""A run as one ONNX file, checked against the run's own logits before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from buttress.errors import ModelError, SettingsError
from buttress.export.agreement import require_agreement
from buttress.export.onnx_palettes import store_palettes
from buttress.export.subject import Subject, require_new_file, write_new_file
from buttress.metrics.cost.onnx_runtime import OnnxError, Session, missing_packages, root_of, to_onnx
from buttress.models.packed import Palettised

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".onnx"
LARGEST = 2**31 - 1  # bytes that one ONNX file can hold


def export_to_onnx(subject: Subject, out: Path) -> None:
    """Write input `images` -> output `logits`, for batches of any size, opset 18.

    Palettes stay packed: the graph unpacks them, which a runtime does once, at load.

    Args:
        subject: the run, at a level.
        out: the file to make.

    Raises:
        SettingsError: a package is missing, `out` exists, or the level is not one of the run's.
        ModelError: it cannot be exported, or ONNX Runtime gives other logits. Then there is no file.
    """
    if missing := missing_packages():
        raise SettingsError(f"--format onnx needs {' and '.join(missing)}: pip install 'buttress[onnx]'")
    require_new_file(out, SUFFIX)
    loaded = subject.load()
    palettes: dict[str, Palettised] = {}
    if subject.run.methods and subject.level is None:
        palettes = {name: entry for name, entry in subject.entries().items() if isinstance(entry, Palettised)}
    try:
        graph = onnx_graph(loaded.module, loaded.preprocessing.size, palettes, subject.metadata(loaded))
        require_agreement(loaded.module, Session(graph), loaded.preprocessing.size, "ONNX Runtime", subject.tolerance)
    except OnnxError as failure:
        raise ModelError(f"{loaded.uri}: {failure}") from failure
    write_new_file(out, graph)


def onnx_graph(module: nn.Module, size: int, palettes: Mapping[str, Palettised], metadata: Mapping[str, str]) -> bytes:
    """The bytes of an ONNX file, checked by `onnx.checker`.

    Args:
        module: a plain network.
        size: of its images, in pixels.
        palettes: of some of its parameters, by name.
        metadata: the file's `metadata_props`.

    Raises:
        OnnxError: it cannot be exported.
    """
    import onnx

    largest = sum(tensor.nbytes for tensor in module.state_dict().values())
    if largest > LARGEST:
        raise OnnxError(f"{largest / 1e9:.1f} GB do not go into one ONNX file; use --format torch-export")
    model = to_onnx(module, size, opaque=tuple(palettes)).model_proto
    store_palettes(model, palettes)
    _without_traces(model)
    model.producer_name, model.producer_version = "buttress", version("buttress")
    onnx.helper.set_model_props(model, dict(metadata))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as failure:
        raise OnnxError(f"onnx.checker refuses the graph ({root_of(failure)})") from failure
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _without_traces(model: ModelProto) -> None:
    """Leave out what the exporter notes for its developers: source files of this machine, line by line."""
    graph = model.graph
    del graph.value_info[:]
    every: Iterable[Any] = (graph, *graph.node, *graph.input, *graph.output, *graph.initializer)
    for part in every:
        part.doc_string = ""
        del part.metadata_props[:]
    model.doc_string = ""

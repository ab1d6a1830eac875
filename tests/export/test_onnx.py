"""ONNX files in ONNX Runtime alone: the run's logits, the run's metadata, palettes packed, nothing of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.runs import CLASSES, a_run, alone
from torch import nn

from buttress.cli import main
from buttress.errors import ModelError, SettingsError
from buttress.export import onnx as exporter
from buttress.export.agreement import ROUNDED, require_agreement
from buttress.export.subject import Subject
from buttress.metrics.cost import onnx_runtime
from buttress.models.packed import Palettised
from buttress.weights.dkm import Dkm
from buttress.weights.ensemble import MeanLogits
from buttress.weights.lcs import Lcs
from buttress.weights.levels import Level, move
from buttress.weights.settings import DkmSettings, LcsSettings

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

READER = """
import json
import numpy as np
import onnxruntime
images, session = np.load(sys.argv[1]), onnxruntime.InferenceSession(sys.argv[2])
(taken,), (given,) = session.get_inputs(), session.get_outputs()
logits = [session.run(None, {"images": images[:count]})[0].tolist() for count in (1, len(images))]
shapes = [[taken.name, *taken.shape], [given.name, *given.shape]]
print(json.dumps([logits, shapes, session.get_modelmeta().custom_metadata_map]))
"""


def read_alone(file: Path, images: torch.Tensor):
    np.save(file.with_suffix(".npy"), images.numpy())
    logits, shapes, metadata = json.loads(alone(READER, str(file.with_suffix(".npy")), str(file), without=("torch",)))
    assert torch.allclose(torch.tensor(logits[0]), torch.tensor(logits[1][:1]), rtol=1e-4, atol=1e-5)
    return torch.tensor(logits[1]), shapes, metadata


def close(left, right):
    return float((left - right).abs().max() / right.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("methods", "size", "name"),
    [
        ((), 32, "test_resnet"),
        ((DkmSettings(bits=3, cluster_dim=2, group_size=16, per_channel_scale=True),), 64, "test_vit"),
    ],
    ids=["plain", "dkm"],
)
def test_R27_onnx_runtime_alone_gives_the_runs_logits(tmp_path, capsys, methods, size, name):
    run = a_run(tmp_path / "run", *methods, name=name, size=size)
    out = tmp_path / "deep" / "model.onnx"
    assert main(["export", str(run.path), "--format", "onnx", "--out", str(out)]) == 0
    assert f"{out}: {out.stat().st_size / 1e6:.3f} MB" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(5))
    logits, shapes, metadata = read_alone(out, images)
    module = run.load_model().module.eval()
    with torch.no_grad():
        assert close(logits, module(images))
    assert shapes == [["images", "batch", 3, size, size], ["logits", "batch", 3]]
    said = run.preprocessing
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert [float(each) for each in metadata["mean"].split(",")] == list(said.mean)
    assert [float(each) for each in metadata["std"].split(",")] == list(said.std)
    assert (metadata["input_size"], metadata["interpolation"]) == (str(size), said.interpolation)
    assert (metadata["crop_pct"], metadata["timm_model"]) == (repr(said.crop_pct), name)
    assert "level" not in metadata
    data = out.read_bytes()
    assert b"site-packages" not in data
    assert str(tmp_path).encode() not in data
    model = onnx.load_from_string(data)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    if methods and isinstance(methods[0], DkmSettings):
        bytes_of_all = sum(parameter.nbytes for parameter in module.parameters())
        assert len(data) < bytes_of_all / 8  # 1.5 bits in place of 32, and what a graph of so many nodes takes
        kept = [each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
        assert max(np.prod(each.dims) for each in kept) <= 2048 + 64  # no weight that is large stayed as it was


def a_network(seed=0):
    """Batch norms behind convolutions, of which the exporter would fold the one into the other."""
    torch.manual_seed(seed)
    norms = nn.BatchNorm2d(8), nn.BatchNorm2d(16)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        assert norm.running_var is not None
        norm.running_var.uniform_(0.5, 2)
    layers = [nn.Conv2d(3, 8, 3), norms[0], nn.ReLU(), nn.Conv2d(8, 16, 3, bias=False), norms[1]]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 5))


@pytest.mark.parametrize(
    "how", [{"bits": 1, "cluster_dim": 3}, {"bits": 5, "group_size": 4, "per_channel_scale": True}]
)
def test_palettes_stay_packed_behind_batch_norms(how):
    network, method = a_network(), Dkm(DkmSettings(min_weights=100, **how))
    method.prepare(network)
    entries = method.packed(network)
    method.materialise(network)
    palettes = {name: entry for name, entry in entries.items() if isinstance(entry, Palettised)}
    assert list(palettes) == ["0.weight", "3.weight", "6.weight"]
    graph = exporter.onnx_graph(network, 8, palettes, {"said": "ü"})
    require_agreement(network, onnx_runtime.Session(graph), 8, "ONNX Runtime")
    model = onnx.load_from_string(graph)
    assert {each.key: each.value for each in model.metadata_props} == {"said": "ü"}
    assert not palettes.keys() & {each.name for each in (*model.graph.initializer, *model.graph.input)}
    assert [each.name for each in model.graph.input] == ["images"]


def test_equal_networks_give_equal_files():
    files = {exporter.onnx_graph(a_network(), 8, {}, {"b": "1", "a": "2"}) for _ in range(2)}
    assert len(files) == 1
    operations = [node.op_type for node in onnx.load_from_string(files.pop()).graph.node]
    assert "BatchNormalization" not in operations  # folded, where there is no palette


def test_means_of_networks_and_layers_that_round_are_exported():
    rounding, method = a_network(), Lcs(LcsSettings(level="bits"))
    method.prepare(rounding)
    method.before_evaluation(rounding, [torch.randn(8, 3, 8, 8)], last=True)
    move(rounding, Level.of("bits", 3))
    method.materialise(rounding)
    both = MeanLogits([a_network(1), rounding])
    graph = exporter.onnx_graph(both, 8, {}, {})
    require_agreement(both, onnx_runtime.Session(graph), 8, "ONNX Runtime", ROUNDED)


def test_what_does_not_agree_is_not_written(tmp_path, monkeypatch):
    run = a_run(tmp_path / "run")
    monkeypatch.setattr(exporter, "onnx_graph", lambda *_: b"a graph")
    monkeypatch.setattr(exporter, "Session", lambda _: lambda images: torch.zeros(len(images), 3))
    with pytest.raises(ModelError, match="ONNX Runtime gives other logits"):
        exporter.export_to_onnx(Subject.of(str(run.path)), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_what_cannot_be_exported_is_one_line(tmp_path, monkeypatch):
    run = a_run(tmp_path / "run")
    subject = Subject.of(str(run.path))

    def export(*_, **__):
        raise RuntimeError("Failed to export the model.\nThis is step 1/3") from ValueError("no such operator\nat all")

    monkeypatch.setattr("torch.onnx.export", export)
    with pytest.raises(ModelError, match=r"run: torch\.onnx\.export fails \(ValueError: no such operator\)$"):
        exporter.export_to_onnx(subject, tmp_path / "out.onnx")
    monkeypatch.setattr(exporter, "LARGEST", 1000)
    with pytest.raises(ModelError, match="do not go into one ONNX file; use --format torch-export"):
        exporter.export_to_onnx(subject, tmp_path / "out.onnx")
    monkeypatch.setattr(onnx_runtime, "PACKAGES", ("onnx_that_is_not_there",))
    with pytest.raises(SettingsError, match=r"needs onnx_that_is_not_there: pip install 'buttress\[onnx\]'"):
        exporter.export_to_onnx(subject, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_broken_graph_is_one_line(monkeypatch):
    with pytest.raises(onnx_runtime.OnnxError, match=r"^ONNX Runtime fails \(\w+: .*\)$"):
        onnx_runtime.Session(b"no graph")


def test_a_network_comes_back_from_its_export_as_it_was():
    network = a_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    program = onnx_runtime.to_onnx(network, 8, opaque=["6.weight"])
    assert [each.name for each in program.model_proto.graph.input] == ["images", "6.weight"]
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

"""Files of torch.export in torch alone."""

from __future__ import annotations

import json

import pytest
import torch
from tests.export.runs import CLASSES, a_run, alone

from buttress.cli import main
from buttress.errors import ModelError
from buttress.export import torch_export
from buttress.export.subject import Subject
from buttress.weights.levels import Level
from buttress.weights.settings import SubspaceSettings

READER = """
import json
import torch
images, told = torch.load(sys.argv[1]), {"metadata.json": ""}
module = torch.export.load(sys.argv[2], extra_files=told).module()
assert "timm" not in sys.modules
print(json.dumps([[module(images[:count]).tolist() for count in (1, len(images))], json.loads(told["metadata.json"])]))
"""


def test_R27_torch_alone_gives_the_runs_logits(tmp_path, capsys):
    run, level = a_run(tmp_path / "run", SubspaceSettings()), "at=0+1"
    out = tmp_path / "model.pt2"
    assert main(["export", str(run.path), "--format", "torch-export", "--level", level, "--out", str(out)]) == 0
    assert f"{out}: {out.stat().st_size / 1e6:.3f} MB" in capsys.readouterr().err
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    torch.save(images, tmp_path / "images.pt")
    logits, metadata = json.loads(alone(READER, str(tmp_path / "images.pt"), str(out)))
    with torch.no_grad():
        expected = run.load_model(Level.parse(level)).module.eval()(images)
    assert torch.allclose(torch.tensor(logits[1]), expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(torch.tensor(logits[0]), expected[:1], rtol=1e-5, atol=1e-6)
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert metadata["input_size"] == "32"
    assert metadata["level"] == level
    assert b"site-packages" not in out.read_bytes()


def test_what_cannot_be_exported_or_differs_is_one_line_and_no_file(tmp_path, monkeypatch):
    subject = Subject.of(str(a_run(tmp_path / "run").path))
    real = torch_export.program

    def other(module, size, metadata):
        with torch.no_grad():
            module.fc.bias += 1
        data = real(module, size, metadata)
        with torch.no_grad():
            module.fc.bias -= 1
        return data

    monkeypatch.setattr(torch_export, "program", other)
    with pytest.raises(ModelError, match=r"torch\.export gives other logits"):
        torch_export.export_to_torch(subject, tmp_path / "out.pt2")

    def fails(*_):
        raise RuntimeError("a graph break\nand advice")

    monkeypatch.setattr(torch_export, "program", fails)
    with pytest.raises(ModelError, match=r"run: torch\.export fails \(RuntimeError: a graph break\)$"):
        torch_export.export_to_torch(subject, tmp_path / "out.pt2")
    assert not (tmp_path / "out.pt2").exists()

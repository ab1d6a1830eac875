"""Weights alone: a plain run's file, and packed ones read by the docs' own reader in NumPy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.code_blocks import PROJECT, block_with
from tests.export.runs import CLASSES, a_run, alone

from buttress.cli import main
from buttress.errors import ModelError
from buttress.models.load import load_model
from buttress.models.packed import Affine, Entry, Palettised, Plain, Sparse, write_packed
from buttress.models.packed_reader import unpack
from buttress.weights.levels import Level
from buttress.weights.settings import DkmSettings, LcsSettings, SubspaceSettings

DOCS = block_with(PROJECT / "docs" / "export.md", "def read_packed").text
READER = f"""
{DOCS}
np.savez(sys.argv[2], **read_packed(sys.argv[1]))
"""


def read_alone(file):
    """What the reader of the docs gives where there is neither Buttress nor torch."""
    alone(READER, str(file), str(file.with_suffix(".npz")), without=("torch",))
    return dict(np.load(file.with_suffix(".npz")))


def export(run, out, capsys, *more):
    assert main(["export", str(run.path), "--format", "safetensors", "--out", str(out), *more]) == 0
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "level", "share"),
    [
        (DkmSettings(), None, 1 / 10),
        (DkmSettings(bits=3, cluster_dim=2, group_size=16, per_channel_scale=True), None, 1 / 9),
        (SubspaceSettings(), "at=0.25", 1.1),
        (LcsSettings(level="keep"), "keep=0.1", 1 / 4),
        (LcsSettings(level="width"), "width=0.5", 1 / 2),
        (LcsSettings(level="bits"), "bits=4", 1 / 4),
    ],
    ids=["dkm", "dkm-3-2", "subspace", "keep", "width", "bits"],
)
def test_R27_numpy_alone_reads_the_weights_of_a_compressed_run(tmp_path, capsys, settings, level, share):
    size = 64 if level == "width=0.5" else 32  # of 32 pixels this network's last maps have one, which widths refuse
    run, out = a_run(tmp_path / "run", settings, size=size), tmp_path / "packed.safetensors"
    said = export(run, out, capsys, *(["--level", level] if level else []))
    assert f"{out}: {out.stat().st_size / 1e6:.3f} MB, of it " in said
    loaded = run.load_model(None if level is None else Level.parse(level))
    expected = loaded.module.state_dict()
    found = read_alone(out)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.numpy().dtype
        np.testing.assert_array_equal(found[name], value.numpy())
    whole = sum(value.nbytes for value in a_run(tmp_path / "plain").load_model().module.state_dict().values())
    assert out.stat().st_size < share * whole
    from safetensors import safe_open

    with safe_open(out, "numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert (metadata["timm_model"], metadata.get("level")) == ("test_resnet", level)


def test_the_reader_of_the_docs_reads_every_encoding(tmp_path):
    rng = torch.Generator().manual_seed(0)
    lut = torch.randn(2, 8, 3, generator=rng)
    entries: dict[str, Entry] = {
        "plain": Plain(torch.arange(6).reshape(2, 3)),
        "half": Plain(torch.randn(3, generator=rng).half()),
        "palette": Palettised(
            shape=(3, 4, 5),
            axis=1,
            bits=3,
            indices_GN=torch.randint(0, 8, (2, 10), generator=rng).to(torch.uint8),
            lut_GKD=lut,
            scale_O=torch.rand(4, generator=rng),
            left_GT=torch.zeros(2, 0),
        ),
        "left": Palettised(
            shape=(4, 5),
            axis=0,
            bits=3,
            indices_GN=torch.randint(0, 8, (2, 3), generator=rng).to(torch.uint8),
            lut_GKD=lut.double(),
            scale_O=torch.rand(4, generator=rng).double(),
            left_GT=torch.randn(2, 1, generator=rng).double(),
        ),
        "sparse": Sparse(torch.randn(5, 5, generator=rng).relu()),
        "flags": Plain(torch.tensor([True, False, True])),
        "affine": Affine(
            torch.randint(0, 32, (3, 7), generator=rng).to(torch.uint8), 5, torch.tensor([0.1]), torch.tensor([16.0])
        ),
        "by row": Affine(
            torch.randint(0, 2, (3, 7), generator=rng).to(torch.uint8), 1, torch.rand(3), torch.tensor([0.0, 1.0, 0.5])
        ),
        "scalar": Plain(torch.tensor(3)),
    }
    write_packed(tmp_path / "all.safetensors", entries)
    found, expected = read_alone(tmp_path / "all.safetensors"), unpack(tmp_path / "all.safetensors")
    assert found.keys() == expected.keys() == entries.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.numpy().dtype
        np.testing.assert_array_equal(found[name], value.numpy())


def test_a_plain_runs_file_is_copied(tmp_path, capsys):
    run, out = a_run(tmp_path / "run"), tmp_path / "deep" / "weights.safetensors"
    assert f"{out}: {(run.path / 'model.safetensors').stat().st_size / 1e6:.3f} MB (MB" in export(run, out, capsys)
    assert out.read_bytes() == (run.path / "model.safetensors").read_bytes()


def test_several_networks_have_no_weights_file(tmp_path, capsys):
    run, out = a_run(tmp_path / "run", SubspaceSettings()), tmp_path / "weights.safetensors"
    assert main(["export", f"{run.path}@at=0+1", "--format", "safetensors", "--out", str(out)]) == 2
    assert "holds one network; use --format onnx or torch-export" in capsys.readouterr().err
    assert not out.exists()


def test_a_packed_file_is_a_file_of_weights(tmp_path, capsys):
    """`timm:NAME@FILE` takes it: the network has the hard palettes for its weights."""
    run, out = a_run(tmp_path / "run", DkmSettings()), tmp_path / "packed.safetensors"
    export(run, out, capsys)
    found = load_model(f"timm:test_resnet@{out}")
    expected = run.load_model()
    assert (found.classes, found.preprocessing) == (expected.classes, expected.preprocessing)
    for name, value in expected.module.state_dict().items():
        assert torch.equal(found.module.state_dict()[name], value)
    damaged = bytearray(out.read_bytes())
    (tmp_path / "half.safetensors").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(ModelError, match=r"half\.safetensors"):
        load_model(f"timm:test_resnet@{tmp_path}/half.safetensors")

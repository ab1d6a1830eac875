"""`buttress evaluate` with the full suite: the same twice, corruption errors against a baseline, one-line refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.onnx import ONNXProgram

from buttress.cli import main
from buttress.metrics.corruptions import CORRUPTIONS
from buttress.metrics.cost import onnx_runtime, timing, variants
from buttress.sources import open_source

COUNTED = ("parameters", "bytes", "macs", "peak_memory")


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """The graph of a run for ONNX Runtime, which takes seconds, is made by the first evaluation of it."""
    made: dict[tuple[int, float], ONNXProgram] = {}

    def once(module: nn.Module, size: int) -> ONNXProgram:
        key = size, sum(float(parameter.detach().abs().sum()) for parameter in module.parameters())
        if key not in made:
            made[key] = onnx_runtime.to_onnx(module, size)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "to_onnx", once)
        patch.setattr(timing, "LEAST_SECONDS", 0.0)  # nothing here is about how long anything takes
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "a"
    words = ["--model=timm:test_vit", "--data=digits", "--size=32", "--epochs=1", "--batch=64", "--workers=0"]
    assert main(["train", *words, "--policy=small-crop", f"--out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def full(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full evaluation of the run."""
    out = tmp_path_factory.mktemp("full") / "full.json"
    told(run, out)
    return out


def told(run: Path, out: Path, *more: str) -> dict[str, Any]:
    words = ["evaluate", str(run), "--data=digits", "--workers=0", "--suite=full", "--corruption-samples=20"]
    assert main([*words, *more, f"--out={out}"]) == 0
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def test_a_full_evaluation_is_the_same_twice_and_one_as_its_own_baseline(run, full, tmp_path, capsys):
    first = json.loads(full.read_text())
    corrupted = first["details"]["corruptions"]
    assert set(corrupted) == {"clean", *CORRUPTIONS}
    assert first["top1"]["count"] == 1797
    assert first["shift_camera"]["count"] == first["shift_cyclic"]["count"] == 20
    assert first["corruption_error"]["count"] == corrupted["clean"]["count"] == 20
    assert first["settings"] | {"suite": "full", "corruption_samples": 20, "seed": 0} == first["settings"]
    assert [each["side"] for each in first["details"]["scales"]] == [16, 32, 48, 64]
    assert first["parameters"]["value"] > 0
    assert first["bytes"]["value"] == (run / "model.safetensors").stat().st_size
    assert {each["variant"] for each in first["details"]["cost"]} > {"eager", "channels_last"}
    consistent = told(run, tmp_path / "c.json", "--consistent-crops")
    text = capsys.readouterr().out
    assert "error when corrupted" in text
    assert "top-1 % of 20 images, clean" in text
    assert "multiply-accumulates, M" in text
    assert consistent["shift_cyclic"]["value"] == 0
    assert consistent["details"]["corruptions"] == corrupted
    again = told(run, tmp_path / "b.json", "--baseline", str(full), "--batch=7")
    assert again["mce"]["value"] == pytest.approx(1)
    assert again["details"]["corruptions"] == corrupted
    assert again["top1"] == first["top1"]
    assert again["nll"]["value"] == pytest.approx(first["nll"]["value"], abs=1e-4)
    assert {name: again[name] for name in COUNTED} == {name: first[name] for name in COUNTED}
    assert "mCE, baseline = 1" in capsys.readouterr().out


def test_what_does_not_fit_is_refused_before_any_work(run, full, tmp_path, capsys, monkeypatch):
    quick = tmp_path / "quick.json"
    assert main(["evaluate", str(run), "--data=digits", "--workers=0", f"--out={quick}"]) == 0
    monkeypatch.setattr("buttress.metrics.score.predictions", None)  # nothing may be scored
    (tmp_path / "half.json").write_text(quick.read_text()[:100])
    capsys.readouterr()
    cases = [
        (["--suite=full", f"--baseline={quick}"], "tells of no corruptions"),
        (["--suite=full", f"--baseline={tmp_path / 'half.json'}"], "half.json"),
        (["--suite=full", f"--baseline={tmp_path / 'none.json'}"], "none.json"),
        ([f"--baseline={quick}"], "--suite full"),
        (["--suite=full", "--corruption-samples=0"], "--corruption-samples 0"),
        (["--corruption-samples=10"], "--suite full"),
        (["--suite=full", "--seed=-1"], "--seed -1"),
        (["--suite=full", f"--baseline={full}"], "corruption_samples differ"),
        (["--suite=full", f"--baseline={full}", "--corruption-samples=20", "--seed=1"], "seed differ"),
        (["--suite=long"], "quick"),
    ]
    for words, part in cases:
        assert main(["evaluate", str(run), "--data=digits", "--workers=0", *words]) == 2, words
        error = capsys.readouterr().err.strip().splitlines()
        assert part in error[-1], (words, error)
        assert not any("Traceback" in line for line in error)


def test_several_right_labels_and_slices_are_told_beside_the_rest(run, tmp_path, capsys):
    ids = open_source("digits").ids
    (tmp_path / "sets.json").write_text(json.dumps({each: [str(digit) for digit in range(10)] for each in ids[:30]}))
    (tmp_path / "slices.json").write_text(json.dumps({"first": ids[:20], "both": ids[10:40]}))
    words = ["evaluate", str(run), "--data=digits", "--workers=0", f"--label-sets={tmp_path / 'sets.json'}"]
    assert main([*words, f"--slices={tmp_path / 'slices.json'}", f"--out={tmp_path / 'a.json'}"]) == 0
    told = json.loads((tmp_path / "a.json").read_text())
    assert (told["multilabel_top1"]["value"], told["multilabel_top1"]["count"]) == (1, 30)
    assert told["details"]["label_sets"] == {"left_out": {"empty": 0, "outside": 0, "absent": 1767}, "errors": []}
    assert [(each["name"], each["images"]) for each in told["details"]["slices"]] == [("first", 20), ("both", 30)]
    assert "top-1, any right label" in capsys.readouterr().out


def test_an_evaluation_of_a_run_is_kept_in_it_and_a_full_one_stays(run, full, capsys):
    words, kept = ["evaluate", str(run), "--data=digits", "--workers=0"], run / "evaluation.json"
    assert main(words) == 0
    assert json.loads(kept.read_text())["settings"]["suite"] == "quick"
    shutil.copy(full, kept)
    capsys.readouterr()
    assert main(words) == 0
    assert kept.read_bytes() == full.read_bytes()
    assert "stays as it is" in capsys.readouterr().err


def test_a_reader_that_goes_away_does_not_take_the_figures_with_it(run, tmp_path):
    words = [sys.executable, "-m", "buttress", "evaluate", str(run), "--data=digits", "--workers=0"]
    evaluating = subprocess.Popen([*words, f"--out={tmp_path / 'a.json'}"], stdout=subprocess.PIPE)
    assert evaluating.stdout is not None
    evaluating.stdout.close()
    evaluating.wait(timeout=120)
    assert json.loads((tmp_path / "a.json").read_text())["top1"]["count"] == 1797

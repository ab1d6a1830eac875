"""R25: what the smoke twins of the shipped recipes do, loss by loss.

`OMP_NUM_THREADS=1 python -m tests.recipes.test_golden_losses` writes tests/golden/smoke_losses.json anew. On the kind
of machine that wrote it (processor, threads and torch) the losses are equal to the last bit; elsewhere sums are taken
in another order, and they agree to 2 %.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from buttress.cli import main
from buttress.recipes.shipped import shipped_names
from buttress.runs.run import open_run

from .conftest import Twins

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "smoke_losses.json"


def kind_of_machine() -> str:
    """A digest of the processor's model and abilities, torch's version, and its threads."""
    text = Path("/proc/cpuinfo").read_text()
    said = [re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE) for key in ("model name", "flags")]
    about = [*(match[1] if match else "" for match in said), torch.__version__, torch.backends.cpu.get_cpu_capability()]
    about.append(str(torch.get_num_threads()))
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]


def losses(run: Path) -> list[float]:
    """The mean loss of every epoch."""
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_recipe_has_golden_losses_and_no_other():
    assert set(json.loads(GOLDEN.read_text())["losses"]) == set(shipped_names())


@pytest.mark.parametrize("name", shipped_names())
def test_R25_a_smoke_twin_has_its_golden_losses(name, twins):
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    exact = golden["kind_of_machine"] == kind_of_machine()
    print("exact" if exact else "to 2 %: another kind of machine")
    run = twins.run(name)
    assert open_run(run).finished
    found = losses(run)
    assert found == (golden["losses"][name] if exact else pytest.approx(golden["losses"][name], rel=0.02))


def test_R25_the_same_again_gives_the_same_bits(tmp_path):
    words = ["train", "--recipe", "digits-hard.smoke", "--epochs", "1", "--engine.deterministic"]
    runs = [tmp_path / "one", tmp_path / "other"]
    for run in runs:
        assert main([*words, "--out", str(run)]) == 0
    one, other = (run / "model.safetensors" for run in runs)
    assert one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        twins = Twins(Path(folder))
        told = {name: losses(twins.run(name)) for name in shipped_names()}
    GOLDEN.write_text(json.dumps({"kind_of_machine": kind_of_machine(), "losses": told}, indent=1) + "\n")

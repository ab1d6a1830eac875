"""Small finished runs, plain and compressed, that nobody trained; and Python processes that have no Buttress."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from buttress.models.load import at_size, load_model
from buttress.runs import Run
from buttress.weights.build import create_method, to_card
from buttress.weights.settings import MethodSettings

CLASSES = ("ant", "bee", "cät")

_ALONE = """
import sys

class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {refused}:
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
{code}
assert "buttress" not in sys.modules
"""


def a_run(path: Path, *methods: MethodSettings, name: str = "test_resnet", size: int = 32) -> Run:
    """A run of three classes at random weights, prepared as the methods do it."""
    model = at_size(load_model(f"timm:{name}", num_classes=3, seed=1), size)
    run = Run.of(
        path,
        model=model,
        classes=CLASSES,
        settings={"model": f"timm:{name}"},
        versions={},
        data={},
        methods=[to_card(each) for each in methods],
    ).create()
    images = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    for each in methods:
        method = create_method(each)
        method.prepare(model.module)
        method.before_evaluation(model.module, [images], last=True)
    run.save_weights(model.module.state_dict())
    return run


def alone(code: str, *arguments: str, without: tuple[str, ...] = ()) -> str:
    """What Python code prints where nothing of the project can be imported, and none of `without` either."""
    text = _ALONE.format(refused=("buttress", *without), code=code)
    words = [sys.executable, "-I", "-c", text, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout

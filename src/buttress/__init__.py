"""Buttress makes small vision models strong.

A teacher looks at a dataset once; every later training reuses what it saw. The public names below are resolved when
they are first used, so that importing the package is fast and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

_PUBLIC = {
    "ArraySource": "buttress.sources",
    "ButtressError": "buttress.errors",
    "Level": "buttress.weights.levels",
    "Policy": "buttress.views.policy",
    "ReinforcedDataset": "buttress.loading.dataset",
    "Reinforcement": "buttress.store.reader",
    "Relabelled": "buttress.sources",
    "Renderer": "buttress.views.render",
    "Run": "buttress.runs.run",
    "Subset": "buttress.sources",
    "TeacherSpec": "buttress.teachers.teacher",
    "compress": "buttress.commands.compress",
    "evaluate": "buttress.commands.evaluate",
    "export": "buttress.commands.export",
    "fold": "buttress.commands.fold",
    "inspect": "buttress.commands.inspect",
    "open_reinforcement": "buttress.store.reader",
    "open_run": "buttress.runs.run",
    "open_source": "buttress.sources",
    "open_teacher": "buttress.teachers.teacher",
    "predict": "buttress.commands.predict",
    "preset": "buttress.views.presets",
    "refine": "buttress.commands.refine",
    "reinforce": "buttress.commands.reinforce",
    "report": "buttress.commands.report",
    "set_level": "buttress.weights.levels",
    "train": "buttress.commands.train",
    "verify": "buttress.commands.verify",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("buttress")
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'buttress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

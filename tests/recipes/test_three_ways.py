"""A recipe, the same as flags, the same from Python: one training."""

from __future__ import annotations

import json
from pathlib import Path

import buttress as bt
from buttress.cli import main, recipe_words
from buttress.commands.train import train
from buttress.signature import arguments_of
from buttress.training.engine import fit


def test_a_recipe_flags_and_python_resolve_to_the_same_settings_and_losses(tmp_path, monkeypatch):
    told: list[list[float]] = []

    def telling(*given, **options):
        history = fit(*given, **options)
        told.append(history.step_losses)
        return history

    monkeypatch.setattr("buttress.training.train.fit", telling)
    name = Path("digits-hard.smoke")
    assert main(["train", "--recipe", str(name), "--epochs", "1", "--out", str(tmp_path / "recipe")]) == 0
    assert (
        main(["train", *recipe_words(name, arguments_of(train)), "--epochs", "1", "--out", str(tmp_path / "flags")])
        == 0
    )
    bt.train(
        model="timm:test_mambaout",
        data="digits",
        out=tmp_path / "python",
        size=32,
        policy="small",
        epochs=1,
        batch=50,
        lr=0.002,
        precision="fp32",
        workers=0,
    )
    cards = [json.loads((tmp_path / way / "run.json").read_text()) for way in ("recipe", "flags", "python")]
    assert cards[0] == cards[1] == cards[2]
    assert len(told[0]) == 35
    assert told[0][:20] == told[1][:20] == told[2][:20]
    weights = [(tmp_path / way / "model.safetensors").read_bytes() for way in ("recipe", "flags", "python")]
    assert weights[0] == weights[1] == weights[2]

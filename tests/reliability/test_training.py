"""Trainings, killed and resumed: the same bits, the same losses, the same order."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from buttress.cli import main
from buttress.loading.batches import HardBatches
from buttress.loading.loader import BatchLoader
from buttress.loading.schedule import Share
from buttress.metrics.score import score
from buttress.runs import open_run
from buttress.sources import open_source
from buttress.training.checkpoints import newest_checkpoint
from buttress.views.presets import preset

DRIVER = Path(__file__).with_name("training_driver.py")
SEED = 20261121
KILLS = int(os.environ.get("BUTTRESS_KILLS", "50"))


def drive(task: str, out: Path, *rest: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *launcher, str(DRIVER), task, str(out), *map(str, rest)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def driven(task: str, out: Path, *rest: object) -> None:
    done = drive(task, out, *rest)
    logs = "".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted(out.rglob("*.log"))[-3:])
    assert done.returncode == 0, done.stderr[-3000:] + logs


def words_on(photos: Path, *more: str, model: str = "timm:test_efficientnet", batch: int = 3) -> list[str]:
    given = f"--model {model} --data folder:{photos} --size 32 --policy small --lr 0.01 --precision fp32"
    return [*given.split(), f"--batch={batch}", *more]


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def losses(run: Path) -> list[float]:
    told: list[float] = json.loads((run / "losses.json").read_text())
    return told


def scores(run: Path) -> list[object]:
    return [json.loads(line)["val"] for line in (run / "metrics.jsonl").read_text().splitlines()][-2:]


def figures(run: Path) -> list[tuple[int, int, float, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = {line["epoch"]: line for line in lines}
    return [(line["epoch"], line["step"], line["loss"], line["lr"]) for line in last.values()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all the lives left, a folder for each case: torch is imported once for them."""
    folder = tmp_path_factory.mktemp("killed")
    photos = folder / "photos"
    for number in range(24):
        rng, label = np.random.default_rng(number), number % 3
        pixels = rng.integers(0, 120, (20 + number, 30, 3), np.uint8)
        pixels[..., label] += 90
        (photos / "abc"[label]).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(photos / "abc"[label] / f"{number:02d}.png"), pixels)
    often = "--engine.checkpoint_minutes=0"
    cases: dict[str, tuple[str, list[object]]] = {}
    for workers in (0, 2):
        words = words_on(photos, "--epochs=5", f"--workers={workers}")
        cases[f"seldom-{workers}"] = ("points", [words, ["step:20", "step:24"]])
        cases[f"often-{workers}"] = ("points", [[*words, often], ["save:21"]])
    for micro, pieces in ((8, 1), (4, 2), (2, 4)):
        words = words_on(photos, "--epochs=3", "--workers=0", f"--engine.micro_batch={micro}", often, batch=8)
        cases[f"pieces-{pieces}"] = ("points", [words, ["step:3", "save:5"]])
    words = words_on(photos, "--epochs=2", "--workers=0", "--engine.ema_decay=0.9", f"--val=folder:{photos}", often)
    cases["average"] = ("points", [words, ["step:5", "save:9"]])
    cases["asked"] = ("terminated", [words_on(photos, "--epochs=3", "--workers=2"), 11])
    driven("several", folder / "runs", json.dumps(cases))
    return folder / "runs"


@pytest.mark.parametrize("workers", [0, 2])
def test_R17_a_killed_training_resumes_to_the_same_bits(runs, workers):
    """40 steps, 8 an epoch. Killed inside an epoch (far from a save), at the edge of one, and right after a save."""
    straight = runs / f"seldom-{workers}" / "straight"
    assert len(losses(straight)) == 40
    for run, first in (
        (f"seldom-{workers}/step-20", 16),
        (f"seldom-{workers}/step-24", 24),
        (f"often-{workers}/straight", 0),
        (f"often-{workers}/save-21", 21),
    ):
        assert weights(runs / run) == weights(straight), run
        assert losses(runs / run) == losses(straight)[first:], run
        assert figures(runs / run) == figures(straight), run


def test_R17_the_workers_change_nothing(runs):
    assert weights(runs / "seldom-0" / "straight") == weights(runs / "seldom-2" / "straight")


def test_R17_a_moving_average_and_its_scores_come_back(runs):
    straight = runs / "average" / "straight"
    assert weights(straight) != weights(runs / "pieces-1" / "straight")
    for run in ("step-5", "save-9"):
        assert weights(runs / "average" / run) == weights(straight)
        assert scores(runs / "average" / run) == scores(straight)


@pytest.mark.parametrize("workers", [0, 2])
def test_R18_the_order_is_the_same_from_any_step_and_in_any_process(photos, workers):
    def met(first_epoch: int, first_step: int, share: Share) -> list[tuple[int, int, tuple[str, ...], str]]:
        source = open_source(f"folder:{photos}")
        batches = HardBatches(source, preset("small"), seed=3, size=16)
        loader = BatchLoader(batches, batch=6, seed=3, shuffle=True, workers=workers, share=share)
        seen = []
        for epoch in range(first_epoch, 3):
            start = first_step if epoch == first_epoch else 0
            loader.set_epoch(epoch, start)
            for step, batch in enumerate(loader, start):
                pixels = np.ascontiguousarray(batch.images.numpy())
                seen.append((epoch, step, batch.ids, hashlib.sha256(pixels.tobytes()).hexdigest()))
        return seen

    for share in (Share(), Share(rank=0, world=2), Share(rank=1, world=2)):
        whole = met(0, 0, share)
        assert len(whole) == 12
        assert met(1, 2, share) == whole[6:]
    alone, first, second = (met(0, 0, share) for share in (Share(), Share(rank=0, world=2), Share(rank=1, world=2)))
    assert [one[2] for one in alone] == [a[2] + b[2] for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_R19_a_checkpoint_comes_after_an_update_whatever_it_is_added_up_from(runs, pieces):
    out = runs / f"pieces-{pieces}"
    kept = sorted(path.name for path in (out / "straight" / "checkpoints").iterdir())
    assert kept == ["step-00000008", "step-00000009"]
    assert len(losses(out / "straight")) == 9
    for point, first in (("step-3", 3), ("save-5", 5)):
        assert weights(out / point) == weights(out / "straight")
        assert losses(out / point) == losses(out / "straight")[first:]


@pytest.fixture(scope="module")
def together(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Three trainings of two processes, and the flags of the first; asserts that there are two."""
    photos, out = runs.parent / "photos", tmp_path_factory.mktemp("together")
    words = words_on(photos, "--epochs=3", "--workers=0", model="timm:test_vit", batch=8)
    short = words_on(photos, "--epochs=6", "--workers=0", model="timm:test_vit", batch=24)
    odd = out / "odd"
    shutil.copytree(photos, odd)
    sorted(odd.rglob("*.png"))[0].unlink()  # one process scores an image less than the other
    averaged = words_on(photos, "--epochs=2", "--workers=0", "--engine.ema_decay=0.9", f"--val=folder:{odd}", batch=8)
    tasks = {"run": (words, 4), "short": (short, 2), "scored": (averaged, -1)}
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = drive("together", out, json.dumps(tasks), launcher=launcher)
    told = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    codes = {"run": 143, "short": 143, "scored": 0}
    assert told == [{"world": 2, "rank": rank, "codes": codes} for rank in (0, 1)], done.stderr[-2000:]
    assert "asked to end; saved after 3 of 3 steps of epoch 2" in done.stderr
    assert "asked to end; saved after 1 of 1 steps of epoch 3" in done.stderr
    return out, words


def test_R20_R21_R24_two_processes_train_as_one_and_one_goes_on_for_them(together, tmp_path):
    """One of two is asked to end: both stop after the same update, also where an epoch is one; one process resumes."""
    out, words = together
    assert main(["train", *words, "--out", str(tmp_path / "alone")]) == 0
    for name, last in (("run", "step-00000006"), ("short", "step-00000003")):
        found = newest_checkpoint(out / name / "checkpoints")
        assert found is not None
        assert found[0].name == last
    assert main(["train", *words, "--out", str(out / "run"), "--resume"]) == 0
    alone, shared = figures(tmp_path / "alone"), figures(out / "run")
    assert [line[:2] for line in shared] == [line[:2] for line in alone]
    np.testing.assert_allclose([line[2] for line in shared], [line[2] for line in alone], rtol=1e-4)
    one, other = (load_file(path / "model.safetensors") for path in (tmp_path / "alone", out / "run"))
    for name, value in one.items():
        # AdamW turns the last bits of small gradients into steps of the size of its rate, 0.01
        np.testing.assert_allclose(other[name], value, atol=3e-3, err_msg=name)


def test_R21_R28_two_processes_score_the_very_model_that_they_save(together):
    """Each has batch statistics of its own slices while it trains, and an average of them."""
    out, _ = together
    told = json.loads((out / "scored" / "metrics.jsonl").read_text().splitlines()[-1])["val"]
    again = score(open_run(out / "scored").load_model(), open_source(f"folder:{out / 'odd'}")).figures
    assert told["top1"]["count"] % 2 == 1
    assert told["top1"] == again["top1"]
    assert told["nll"]["value"] == pytest.approx(again["nll"]["value"], rel=1e-5)


def test_R22_killed_while_saving_a_whole_checkpoint_is_left(tmp_path):
    driven("saving", tmp_path / "checkpoints", 50, SEED)
    told = json.loads((tmp_path / "checkpoints" / "done.json").read_text())
    print(told)
    assert told["saves"] > 50
    assert len(told["left"]) == 2  # half-written ones are gone


def test_R24_asked_to_end_it_saves_after_the_update_and_resumes_to_the_same_bits(runs):
    assert json.loads((runs / "asked" / "saved.json").read_text()).count("step-00000012") == 1
    assert weights(runs / "asked" / "asked") == weights(runs / "asked" / "straight")
    assert losses(runs / "asked" / "asked") == losses(runs / "asked" / "straight")[12:]
    told = (runs / "asked" / "asked.log").read_text()
    assert "asked to end; saved after 4 of 8 steps of epoch 2; the same command goes on" in told


def test_R17_killed_at_random_moments_the_weights_are_the_same(tmp_path):
    """Of one short run on real digits, `BUTTRESS_KILLS` times (50)."""
    words = "--model timm:test_mambaout --data digits --size 32 --policy small --epochs 2 --batch 50 --lr 0.002"
    more = "--precision fp32 --workers 0 --engine.checkpoint_minutes 0"
    print(f"seed {SEED}, {KILLS} kills")
    cases = {"digits": ("random", [[*words.split(), *more.split()], KILLS, SEED])}
    driven("several", tmp_path / "r", json.dumps(cases))
    run = tmp_path / "r" / "digits"
    assert weights(run / "killed") == weights(run / "straight")
    assert figures(run / "killed") == figures(run / "straight")


def test_R23_other_settings_are_refused_by_key_unless_told_to(photos, tmp_path, capsys):
    words = ["train", *words_on(photos, "--workers=0", batch=8), f"--out={tmp_path / 'run'}"]
    assert main([*words, "--epochs=1"]) == 0
    (tmp_path / "run" / "model.safetensors").unlink()
    assert main([*words, "--epochs=2", "--label-smoothing=0.1", "--resume"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "epochs (1 there, 2 asked for), label_smoothing (0.0 there, 0.1 asked for)" in line
    assert "--other-settings" in line
    assert main([*words, "--epochs=2", "--label-smoothing=0.1", "--resume", "--other-settings"]) == 0
    assert [figure[:2] for figure in figures(tmp_path / "run")] == [(1, 3), (2, 6)]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["epochs"] == 2


def test_R23_other_settings_are_for_a_resume(photos, tmp_path, capsys):
    assert main(["train", *words_on(photos), f"--out={tmp_path / 'run'}", "--other-settings"]) == 2
    assert "--other-settings: says how to go on, so it needs --resume" in capsys.readouterr().err


def test_R26_a_loss_that_is_not_finite_stops_with_the_step_and_the_ids(photos, tmp_path, capsys):
    words = words_on(photos, "--workers=0", "--epochs=3", "--schedule.warmup=0", batch=4)
    words[words.index("--lr") + 1] = "1e30"
    assert main(["train", *words, f"--out={tmp_path / 'run'}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"step [1-5]: the loss is (nan|inf) on (\w+/\d\d\.png(, )?){4}; lower --lr, or look at these", line
    )

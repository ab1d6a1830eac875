"""Trainings that are killed, run by `python training_driver.py TASK ...`: torch is imported once, every life is a fork.

Nothing here starts a thread before it forks. What a training leaves is in its run folder, beside it `losses.json`: the
loss of every update of the life that finished it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# what a life would import is imported once
import docstring_parser  # noqa: F401
import jsonargparse  # noqa: F401
import sklearn.datasets  # noqa: F401

from buttress import cli
from buttress.training import checkpoints, engine, train


def told_losses(folder: Path) -> None:
    """Have the next training write its losses down when it is done."""
    fit = engine.fit

    def telling(*given: Any, **options: Any) -> Any:
        history = fit(*given, **options)
        (folder / "losses.json").write_text(json.dumps(history.step_losses))
        return history

    vars(train)["fit"] = telling


def life(words: list[str], out: Path, before: Callable[[], None] = lambda: None) -> int:
    """A child process that trains; its id."""
    child = os.fork()
    if child:
        return child
    with (out.parent / f"{out.name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    before()
    told_losses(out)
    code = cli.main(["train", *words, "--out", str(out), *(["--resume"] if out.exists() else [])])
    sys.stdout.flush()
    os._exit(code)


def ended(child: int) -> int:
    """Its exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_step(number: int, sent: signal.Signals) -> None:
    """This process, and those that it started, get that signal from another when that update is about to begin.

    From another, for torch's workers take a SIGTERM of their parent as the wish to end in peace.
    """
    step = engine._Engine.step

    def interrupted(self: Any, batch: Any, at: int) -> Any:
        if at == number:
            everyone = [*(child.pid for child in multiprocessing.active_children()), os.getpid()]
            subprocess.run(["kill", f"-{sent.value}", *map(str, everyone)], check=True)
            time.sleep(0.2)  # a worker that died of it is noticed by now
        return step(self, batch, at)

    engine._Engine.step = interrupted  # type: ignore[assignment, method-assign]


def die_before_step(number: int) -> None:
    """SIGKILL when that update is about to begin."""
    at_step(number, signal.SIGKILL)


def die_after_save(updates: int) -> None:
    """SIGKILL as soon as the checkpoint of so many updates is written."""
    save = checkpoints.save_checkpoint

    def dying(*given: Any, **options: Any) -> Any:
        path = save(*given, **options)
        if options["updates"] == updates:
            os.kill(os.getpid(), signal.SIGKILL)
        return path

    vars(engine)["save_checkpoint"] = dying


DEATHS = {"step": die_before_step, "save": die_after_save}


def at_points(out: Path, words: list[str], points: list[str]) -> None:
    """A training undisturbed, and one for each point (`step:20`, `save:21`) that is killed there and resumed."""
    assert ended(life(words, out / "straight")) == 0
    for point in points:
        kind, number = point.split(":")
        run = out / point.replace(":", "-")
        assert ended(life(words, run, partial(DEATHS[kind], int(number)))) == -signal.SIGKILL
        assert ended(life(words, run)) == 0


def at_random(out: Path, words: list[str], kills: int, seed: int) -> None:
    """A training undisturbed, and one that is killed `kills` times at random moments, each at least one save on."""
    draw = random.Random(seed)
    assert ended(life(words, out / "straight")) == 0
    newest = ""
    for number in range(kills):
        child = life(words, out / "killed")
        while (now := newest_of(out / "killed" / "checkpoints")) <= newest:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), f"life {number} ended by itself"
            time.sleep(0.002)
        newest = now
        time.sleep(draw.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
    assert ended(life(words, out / "killed")) == 0


def newest_of(checkpoints: Path) -> str:
    return max((path.name for path in checkpoints.glob("step-*")), default="")


def terminated(out: Path, words: list[str], number: int) -> None:
    """A training that is asked to end while it takes that update, and resumed."""

    assert ended(life(words, out / "straight")) == 0
    assert ended(life(words, out / "asked", partial(at_step, number, signal.SIGTERM))) == 143
    (out / "saved.json").write_text(json.dumps([path.name for path in (out / "asked" / "checkpoints").iterdir()]))
    assert ended(life(words, out / "asked")) == 0


def together(folder: Path, runs: dict[str, tuple[list[str], int]]) -> None:
    """One of several processes that torchrun started, which train one run after the other.

    The last process is asked to end while it takes the update of that number; a number below 0 never comes.
    """
    codes, step, last = {}, engine._Engine.step, os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
    for name, (words, number) in runs.items():
        if last:
            at_step(number, signal.SIGTERM)
        codes[name] = cli.main(["train", *words, "--out", str(folder / name)])
        engine._Engine.step = step  # type: ignore[method-assign]
    told = {"world": engine.share().world, "rank": engine.share().rank, "codes": codes}
    (folder / f"rank-{engine.share().rank}.json").write_text(json.dumps(told))


def saving(out: Path, lives: int, seed: int) -> None:
    """Saves without end, killed at random moments; after each the newest whole checkpoint is loaded and compared."""
    import torch
    from torch import nn

    from buttress.training.checkpoints import Place, TrainingState, load_checkpoint, newest_checkpoint, save_checkpoint

    def state(updates: int) -> TrainingState:
        model = nn.Linear(200, 200)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(updates)
        return TrainingState(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))

    def save(updates: int) -> None:
        place = Place(epoch=0, step=updates, losses=[0.5], history=[])
        save_checkpoint(out, state(updates), place, updates=updates, settings={})

    draw, done = random.Random(seed), 0
    for _ in range(lives):
        child = os.fork()
        if not child:
            for updates in range(done + 1, 10**6):
                save(updates)
        while newest_of(out) <= f"step-{done:08d}":
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        found = newest_checkpoint(out)
        assert found is not None, "no whole checkpoint is left"
        path, told = found
        loaded = state(-1)
        place = load_checkpoint(path, told, loaded)
        assert place.step >= done, f"{path.name} is older than what was there before"
        assert all((parameter == place.step).all() for parameter in loaded.model.parameters())
        done = place.step
    save(done + 1)
    (out / "done.json").write_text(json.dumps({"saves": done + 1, "left": sorted(path.name for path in out.iterdir())}))


TASKS: dict[str, Callable[..., None]] = {"points": at_points, "random": at_random, "terminated": terminated}

if __name__ == "__main__":
    task, folder, *rest = sys.argv[1:]
    Path(folder).mkdir(exist_ok=True)
    if task == "several":  # {name: [task, arguments]}, one after the other
        for name, (kind, arguments) in json.loads(rest[0]).items():
            (Path(folder) / name).mkdir()
            TASKS[kind](Path(folder) / name, *arguments)
    elif task == "saving":
        saving(Path(folder), int(rest[0]), int(rest[1]))
    else:
        together(Path(folder), json.loads(rest[0]))

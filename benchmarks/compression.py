"""Compressed and elastic models from a reinforcement against those from hard labels, on CIFAR-100.

    python -m benchmarks.compression tune     # choose the rate of dkm, and how lcs draws, on held-back images
    python -m benchmarks.compression run      # the comparison; every run is a line of docs/results/compression.jsonl
    python -m benchmarks.compression alone    # what is made of the plain networks without training
    python -m benchmarks.compression steps    # what a step of each method costs, against a plain one, in one process
    python -m benchmarks.compression epochs   # the same of whole trainings: images, views, schedule and all
    python -m benchmarks.compression table    # made from that file alone (`page`: into docs/compression.md)

The images, the split, the teacher, the store and the plain student are those of `benchmarks.cifar100` with 10,000
images: make them first by its `teacher` and `reinforce`. Same views, batch, steps, optimizer, schedule and rate for all
that train from scratch; scored once, at the last epoch, on the 10,000 test images. What is in the file is not done
again. `dkm` goes on from the plain network of its own seed and targets.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.cifar100 import BATCH, EPOCHS, IMAGES, POLICY, SIZE, STUDENT, test_uri
from benchmarks.imagenette import wrong_labels
from benchmarks.trials import (
    best_rate,
    data_folder,
    figures_on,
    lines,
    markdown,
    paired_interval,
    put_table,
    run_trials,
    spread,
)
from buttress.weights.settings import DkmSettings, LcsSettings, MethodSettings, SubspaceSettings

NAME, MODULE = "compression", "benchmarks.compression"
PAGE = Path(__file__).parents[1] / "docs" / "compression.md"
MARK = "<!-- made by `python -m benchmarks.compression page` -->"
WORK = Path(f"build/cifar100-{IMAGES}")
RATES = {"hard": 4e-3, "store": 8e-3}  # as chosen for the plain student by benchmarks.cifar100 tune
SEEDS = (0, 1, 2)
KEEPS = (1.0, 0.5, 0.25, 0.1, 0.025)
WIDTHS = (1.0, 0.75, 0.5, 0.375, 0.25)
DKM_EPOCHS, DKM_LONG_EPOCHS, DKM_RATES = 8, 16, (5e-4, 1e-3)
NOISE = 0.2  # share of wrong labels
TURNS, RARELY, STEPS, LATE = 66, 6, 5, 10_000  # of the cost of a step
EPOCH_IMAGES, EPOCH_TURNS = 1_280, 5  # of the cost of an epoch
PLAIN_BYTES = 1_547_264  # of the plain student's weights file
TOLD = {"hard": "hard labels", "store": "from the store", "noise": "a fifth of the labels wrong"}
ARMS: dict[str, MethodSettings | None] = {
    "plain": None,
    "dkm-2": DkmSettings(bits=2),
    "dkm-1": DkmSettings(bits=1),
    "dkm-2-16": DkmSettings(bits=2),  # 16 epochs
    # Tried on the held-back images when the classifier had no bits of its own, 1e-3 for 4 epochs, the last one for 10:
    "dkm-2-alike": DkmSettings(bits=2, classifier_bits=2, min_weights=2048),
    "dkm-2-hard": DkmSettings(bits=2, classifier_bits=2, min_weights=2048, tau=0.01),
    "dkm-2-groups": DkmSettings(bits=2, classifier_bits=2, min_weights=2048, group_size=16),
    "dkm-2-once": DkmSettings(bits=2, classifier_bits=2, min_weights=2048, iterations=1),
    "dkm-2-longer": DkmSettings(bits=2, classifier_bits=2, min_weights=2048, iterations=1),
    "lcs-point": LcsSettings(),
    **{f"target-{keep:g}": LcsSettings(kind="target", low=keep, warmup=0.8) for keep in KEEPS[1:]},
    "subspace": SubspaceSettings(),
    "lcs-line": LcsSettings(kind="line", warmup=0.8),
    "lcs-width": LcsSettings(level="width"),
    "lcs-point-group": LcsSettings(norm="group", draw="uniform", warmup=0.8),
    "lcs-uniform-0.2": LcsSettings(draw="uniform", warmup=0.2),
    "lcs-log-0.5": LcsSettings(draw="log", warmup=0.5),
}
BOTH = ("hard", "store")
WANTED = {  # arm -> what it is trained on; noise = hard labels of which a fifth is wrong
    **dict.fromkeys(("plain", "dkm-2", "dkm-1", "lcs-point", "subspace"), BOTH),
    "dkm-2-16": ("store",),
    **{f"target-{keep:g}": ("store",) for keep in KEEPS[1:]},
    **dict.fromkeys(("lcs-line", "lcs-width", "lcs-point-group"), ("store",)),
}


@dataclass(frozen=True)
class Trial:
    """One training. `targets`: hard, store or noise. `phase`: tune scores on held-back images, final on test images."""

    phase: str
    arm: str
    targets: str
    seed: int
    lr: float
    epochs: int = EPOCHS[IMAGES]

    @property
    def name(self) -> str:
        return f"{self.phase}-{self.arm}-{self.targets}-{self.lr:g}-{self.seed}"

    @property
    def method(self) -> MethodSettings | None:
        return ARMS[self.arm]


def data_of(trial: Trial, work: Path) -> Any:
    """What a trial learns from."""
    from buttress.sources import Relabelled, open_source
    from buttress.store.reader import open_reinforcement
    from buttress.training.data import TrainingData
    from buttress.views.presets import preset

    source = open_source(f"parquet:{work}/fit.parquet")
    if trial.targets == "store":
        return TrainingData(source=source, reinforcement=open_reinforcement(work / "reinforced-store"))
    if trial.targets == "noise":
        source = Relabelled(source, wrong_labels(np.asarray(source.labels), NOISE, 100))
    return TrainingData(source=source, policy=preset(POLICY))


def settings_of(trial: Trial) -> Any:
    from buttress.training.settings import EngineSettings, TrainingSettings

    return TrainingSettings(
        epochs=trial.epochs,
        batch=BATCH,
        lr=trial.lr,
        seed=trial.seed,
        workers=0,
        evaluate_every=trial.epochs,
        engine=EngineSettings(checkpoint_every=1),
    )


def plain_run(work: Path, targets: str, seed: int) -> Path:
    """Where the plain network of a seed lies."""
    rate = RATES["hard" if targets == "noise" else targets]
    return work / "compression" / Trial("final", "plain", targets, seed, rate).name


def train_one(trial: Trial, work: Path) -> dict[str, Any]:
    """Train and score one trial in this process, on one thread; the figures of every level, the default one on top."""
    import torch

    from buttress.training.train import train_on_source

    torch.set_num_threads(1)
    out = work / "compression" / trial.name
    begins_with = f"run:{plain_run(work, trial.targets, trial.seed)}" if trial.arm.startswith("dkm") else STUDENT
    resumed, used = (out / "run.json").exists(), time.process_time()
    run = train_on_source(
        data_of(trial, work),
        model=begins_with,
        out=out,
        settings=settings_of(trial),
        size=SIZE,
        resume=resumed,
        methods=[] if trial.method is None else [trial.method],
    )
    cost = {"cpu_seconds": round(time.process_time() - used), "resumed": resumed}
    levels = {}
    for level in levels_of(run):
        loaded = run.load_model(level, measured=True)
        levels[str(level or "")] = {**scored(loaded, trial.phase, work), "bytes": loaded.stored_bytes}
    top = next(iter(levels.values()))
    return {"kind": "trial", **asdict(trial), **cost, **top, "levels": levels}


def levels_of(run: Any) -> Sequence[Any]:
    """The levels to score: those of the run, and of a subspace both ends' ensemble."""
    from buttress.weights.levels import Level

    found = run.levels()
    return (*found, Level.parse("at=0+1")) if found and found[0].kind == "at" else found or (None,)


def scored(loaded: Any, phase: str, work: Path) -> dict[str, Any]:
    return figures_on(loaded, f"parquet:{work}/held.parquet", test_uri() if phase == "final" else None)


def tuning(arms: Sequence[str]) -> list[Trial]:
    """Rates of dkm at 2 bits, from both kinds of targets; when and how lcs begins to drop weights, from the store.

    More was tried, which stands in the file: softness, groups, one iteration, more epochs of palettes.
    """
    rates = [Trial("tune", "dkm-2", targets, 0, rate, DKM_EPOCHS) for targets in BOTH for rate in DKM_RATES]
    drops = [Trial("tune", arm, "store", 0, RATES["store"]) for arm in ("lcs-uniform-0.2", "lcs-log-0.5")]
    return [trial for trial in rates + drops if trial.arm in arms]


def dkm_rate(targets: str) -> float:
    """Of the least NLL on the held-back images."""
    wanted = {"kind": "trial", "phase": "tune", "arm": "dkm-2", "targets": targets}
    return best_rate([x for x in lines(NAME) if wanted.items() <= x.items()], DKM_RATES, "dkm-2")


def finals(arms: Sequence[str]) -> list[Trial]:
    """Seed by seed, so that what is there at any time can be compared."""
    found = []
    for seed in SEEDS:
        for arm in arms:
            for targets in WANTED[arm]:
                if arm.startswith("dkm"):
                    epochs = DKM_LONG_EPOCHS if arm == "dkm-2-16" else DKM_EPOCHS
                    found.append(Trial("final", arm, targets, seed, dkm_rate(targets), epochs))
                else:
                    found.append(Trial("final", arm, targets, seed, RATES[targets]))
    noisy = [Trial("final", arm, "noise", seed, RATES["hard"]) for seed in SEEDS for arm in ("plain", "subspace")]
    return found + [trial for trial in noisy if trial.arm in arms]


def alone(work: Path) -> None:
    """What the plain networks give when they are pruned or clustered without a step of training.

    Pruned as `lcs` prunes, by magnitude within a tensor, first convolution and classifier left dense; `pruned` keeps
    the batch statistics, `pruned-bn` and `kmeans` have them re-estimated.
    """
    from buttress.compression.compress import TrainingImages, kmeans_alone
    from buttress.runs.run import open_run
    from buttress.weights.lcs import Lcs

    there = {line["name"] for line in lines(NAME)}
    for width in WIDTHS:
        if f"size-width-{width:g}" not in there:
            told_size = {"kind": "size", "name": f"size-width-{width:g}", "arm": "lcs-width", "level": width}
            record(NAME, {**told_size, "bytes": width_bytes(width)}, MODULE)
    for targets in BOTH:
        for seed in SEEDS:
            run = open_run(plain_run(work, targets, seed))
            trial = Trial("final", "plain", targets, seed, RATES[targets])
            data, settings = data_of(trial, work), settings_of(trial)

            def told(
                what: str, level: float, make: Callable[[], Any], targets: str = targets, seed: int = seed
            ) -> None:
                name = f"{what}-{level:g}-{targets}-{seed}"
                if name not in there:
                    line = {
                        "kind": "alone",
                        "name": name,
                        "arm": what,
                        "level": level,
                        "targets": targets,
                        "seed": seed,
                    }
                    record(NAME, {**line, **scored(make(), "final", work)}, MODULE)

            def pruned(keep: float, anew: bool, run: Any = run, data: Any = data, settings: Any = settings) -> Any:
                loaded, by = run.load_model(), Lcs(LcsSettings(kind="target", low=keep))
                by.attach(loaded.module)
                images = TrainingImages(data, loaded, settings) if anew else ()
                kept = {n: b.clone() for n, b in loaded.module.named_buffers() if "running" in n}
                by.before_evaluation(loaded.module, images, last=True)
                if not anew:
                    buffers = dict(loaded.module.named_buffers())
                    for name, value in kept.items():
                        buffers[name].copy_(value)
                by.materialise(loaded.module)
                return loaded

            def clustered(bits: int, run: Any = run, data: Any = data, settings: Any = settings) -> Any:
                return kmeans_alone(run.load_model(), DkmSettings(bits=bits), data, settings)

            for bits in (2, 1):
                told("kmeans", bits, partial(clustered, bits))
            for keep in KEEPS[1:]:
                told("pruned", keep, partial(pruned, keep, False))
                told("pruned-bn", keep, partial(pruned, keep, True))


def width_bytes(width: float) -> int:
    """Of the plain network that is left at a width, in float32."""
    import timm

    from buttress.weights.build import create_method
    from buttress.weights.levels import set_level

    model = timm.create_model("test_resnet", num_classes=100)
    by = create_method(LcsSettings(level="width"), size=SIZE)
    by.prepare(model)
    set_level(model, width=width)
    by.materialise(model)
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def step_costs() -> None:
    """Processor time of a step of each method over that of a plain step, in turns in one process; median of the ratios.

    Batch and size are those of the comparison; timm's test_resnet, one thread, as the engine runs a step: masks, lines,
    palettes, regulariser and optimizer included, images and loss alike, freed memory kept as commands keep it. `lcs` is
    past its warm-up, where it masks. There are 66 turns, for single ones differ by a tenth; what costs twice a plain
    step or more is in every sixth of them.
    """
    import timm
    import torch

    from buttress.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    methods = {
        name: ARMS[name] for name in ("plain", "subspace", "lcs-point", "lcs-line", "lcs-width", "dkm-2", "dkm-1")
    }
    steps = {name: _stepper(timm.create_model("test_resnet", num_classes=100), by) for name, by in methods.items()}
    for turn in range(2):
        for step in steps.values():
            step(turn)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(TURNS):
        for name, step in steps.items():
            if name.startswith(("lcs-width", "dkm")) and turn % RARELY:
                continue
            begun = time.process_time()
            for number in range(STEPS):  # one after the other, as in a training: weights are still in the cache
                step(turn * STEPS + number)
            seconds[name].append((time.process_time() - begun) / STEPS)
            ratios[name].append(seconds[name][-1] / seconds["plain"][-1])
    line = {"kind": "steps", "name": "steps", "seconds": seconds, "ratios": ratios, "load": os.getloadavg()[0]}
    record(NAME, line, MODULE)
    for name, told in ratios.items():
        print(f"{name}: {statistics.median(told):.3f}")


def epoch_costs() -> None:
    """Processor time of an epoch of a training under each method over that of a plain one, by turns; their median.

    Trainings by the library's own loop, from the files to the optimizer: 1,280 images of CIFAR-100, the student, batch,
    size and policy of the comparison, one thread. The time of three epochs less that of one, halved, so that start and
    end cancel.
    """
    import contextlib
    import io
    import tempfile

    import torch

    from buttress.memory import keep_freed_memory
    from buttress.sources import Subset, open_source
    from buttress.training.data import TrainingData
    from buttress.training.settings import EngineSettings, TrainingSettings
    from buttress.training.train import train_on_source
    from buttress.views.presets import preset

    torch.set_num_threads(1)
    keep_freed_memory()
    source = Subset(open_source(f"parquet:{data_folder()}/cifar100/train.parquet"), np.arange(EPOCH_IMAGES))
    data = TrainingData(source=source, policy=preset(POLICY))

    def seconds(method: MethodSettings | None, epochs: int, out: Path) -> float:
        settings = TrainingSettings(
            epochs=epochs, batch=BATCH, precision="fp32", workers=0, engine=EngineSettings(checkpoint_every=epochs)
        )
        used = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()):
            methods = () if method is None else (method,)
            train_on_source(data, model=STUDENT, out=out, settings=settings, size=SIZE, methods=methods)
        return time.process_time() - used

    arms = {name: ARMS[name] for name in ("plain", "subspace", "lcs-point")}
    found: dict[str, list[float]] = {name: [] for name in arms}
    with tempfile.TemporaryDirectory() as temporary:
        for turn in range(EPOCH_TURNS + 1):
            for name, method in arms.items():
                one, three = (seconds(method, epochs, Path(temporary, f"{name}-{turn}-{epochs}")) for epochs in (1, 3))
                if turn:
                    found[name].append((three - one) / 2)
    ratios = {name: [a / b for a, b in zip(told, found["plain"], strict=True)] for name, told in found.items()}
    record(
        NAME,
        {"kind": "epochs", "name": "epochs", "seconds": found, "ratios": ratios, "load": os.getloadavg()[0]},
        MODULE,
    )
    for name, told in ratios.items():
        print(f"{name}: {statistics.median(told):.3f} ({min(told):.3f} to {max(told):.3f})")


def _stepper(model: Any, settings: MethodSettings | None) -> Callable[[int], None]:
    import torch
    from torch.nn.utils import parametrize

    from buttress.training.optim import carry_over, create_optimizer, plain_groups
    from buttress.training.settings import OptimizerSettings
    from buttress.weights.build import create_method

    groups = plain_groups(model, 0.05)
    by = None if settings is None else create_method(settings)
    if by is not None:
        by.prepare(model)
    model.train().to(memory_format=torch.channels_last)
    optimizer = create_optimizer(carry_over(groups, model), OptimizerSettings(), 1e-3)
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    labels, generator = torch.randint(0, 100, (BATCH,)), torch.Generator()

    def step(number: int) -> None:
        if by is not None:
            by.before_step(LATE + number, LATE + TURNS * STEPS, generator.manual_seed(number))
        passes: Sequence[Callable[[], object]] = (lambda: None,) if by is None else by.passes(number)
        for place, move in enumerate(passes, 1):
            with parametrize.cached():
                move()
                loss = torch.nn.functional.cross_entropy(model(images), labels)
                pull = by.auxiliary_loss(model) if by is not None and place == len(passes) else None
            (loss if pull is None else loss + pull).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


Runs = dict[int, dict[str, Any]]


def runs_of(arm: str, targets: str, level: str = "") -> Runs:
    """Seed -> figures at a level, of the finals."""
    wanted = {"kind": "trial", "phase": "final", "arm": arm, "targets": targets}
    found = {x["seed"]: x.get("levels", {"": x}) for x in lines(NAME) if wanted.items() <= x.items()}
    return {seed: told[level or next(iter(told))] for seed, told in found.items()}


def alone_of(arm: str, level: float, targets: str) -> Runs:
    """Seed -> figures of what was made without training."""
    found = [x for x in lines(NAME) if x["kind"] == "alone"]
    return {x["seed"]: x for x in found if (x["arm"], x["level"], x["targets"]) == (arm, level, targets)}


def top1(runs: Runs) -> str:
    return spread((x["top1"] for x in runs.values()), 100) if runs else ""


def difference(ours: Runs, theirs: Runs) -> str:
    """Points of top-1 with their 95 % interval."""
    if not ours.keys() & theirs.keys():
        return ""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*paired_interval(ours, theirs))


def verdict(ours: Runs, theirs: Runs, low: float) -> str:
    """Whether ours are at least `low` points above theirs: met or missed where the whole interval says so."""
    if not ours.keys() & theirs.keys():
        return ""
    _, least, most = paired_interval(ours, theirs)
    return "met" if least >= low else "missed" if most < low else "undecided"


def dkm_table() -> str:
    rows = []
    for arm, name, bits in (("dkm-2", "2 bit", 2), ("dkm-2-16", "2 bit, 16 epochs", 2), ("dkm-1", "1 bit", 1)):
        for targets in WANTED[arm]:
            plain, ours = runs_of("plain", targets), runs_of(arm, targets)
            kmeans = alone_of("kmeans", bits, targets)
            if not ours:
                continue
            size = next((x["bytes"] for x in ours.values() if x["bytes"]), None)  # not every run was measured
            cells = [f"{name}, {TOLD[targets]}", top1(plain), top1(kmeans), top1(ours), difference(ours, plain)]
            rows.append(
                [
                    *cells,
                    verdict(ours, plain, -1.0),
                    difference(ours, kmeans),
                    f"{size / 1e6:.3f}" if size else "",
                    f"{PLAIN_BYTES / size:.1f}" if size else "",
                ]
            )
    head = [
        "",
        "plain, top-1 %",
        "k-means",
        "dkm",
        "dkm - plain",
        "at most 1.0 lost",
        "dkm - k-means",
        "MB",
        "times smaller",
    ]
    return markdown(head, rows)


def keep_table(targets: str) -> str:
    rows = []
    for keep in KEEPS:
        level = f"keep={keep:g}"
        single = runs_of("plain" if keep == 1 else f"target-{keep:g}", targets)
        ours, line = runs_of("lcs-point", targets, level), runs_of("lcs-line", targets, level)
        pruned = runs_of("plain", targets) if keep == 1 else alone_of("pruned-bn", keep, targets)
        raw = runs_of("plain", targets) if keep == 1 else alone_of("pruned", keep, targets)
        cells = [f"{keep:g}", top1(raw), top1(pruned), top1(single), top1(ours), difference(ours, single)]
        rows.append([*cells, verdict(ours, single, -3.0), difference(ours, pruned), top1(line)])
    head = ["keep", "plain, pruned", "and batch statistics anew", "trained at it alone", "lcs point", "point - alone"]
    return markdown([*head, "at most 3.0 lost", "point - pruned", "lcs line"], rows)


def width_table() -> str:
    rows = []
    sizes = {x["level"]: x["bytes"] for x in lines(NAME) if x["kind"] == "size"}
    for width in WIDTHS:
        runs = runs_of("lcs-width", "store", f"width={width:g}")
        if runs and width in sizes:
            rows.append([f"{width:g}", top1(runs), f"{sizes[width] / 1e6:.2f}"])
    return markdown(["width", "top-1 %", "MB in float32"], rows)


def subspace_table() -> str:
    rows = []
    names = {"at=0.5": "midpoint", "at=0": "one end", "at=1": "the other", "at=0+1": "both ends' ensemble"}
    for targets in ("hard", "store", "noise"):
        plain = runs_of("plain", targets)
        for level, name in {"": "plain", **names}.items():
            runs = plain if not level else runs_of("subspace", targets, level)
            if runs:
                nll, ece = (
                    spread((x[key] for x in runs.values()), *how) for key, how in (("nll", (1, 2)), ("ece", (100,)))
                )
                rows.append(
                    [f"{TOLD[targets]}: {name}", top1(runs), difference(runs, plain) if level else "", nll, ece]
                )
    return markdown(["", "top-1 %", "- plain", "NLL", "ECE %"], rows)


def store_table() -> str:
    """From the store against from hard labels, method by method."""
    rows = []
    levels = {
        "plain": [""],
        "dkm-2": [""],
        "dkm-1": [""],
        "lcs-point": [f"keep={k:g}" for k in KEEPS],
        "subspace": ["at=0.5"],
    }
    for arm, told in levels.items():
        for level in told:
            hard, store = (runs_of(arm, targets, level) for targets in BOTH)
            if hard and store:
                rows.append([f"{arm} {level}".strip(), top1(hard), top1(store), difference(store, hard)])
    return markdown(["", "hard labels, top-1 %", "from the store", "difference"], rows)


def steps_table() -> str:
    found = [x for x in lines(NAME) if x["kind"] == "steps"]
    if not found:
        return ""
    ratios = found[-1]["ratios"]
    rows = [
        [name, f"{statistics.median(told):.2f}", "{:.2f} to {:.2f}".format(*np.quantile(told, (0.25, 0.75)))]
        for name, told in ratios.items()
        if name != "plain"
    ]
    return markdown(["", "times a plain step", "half of the turns lie in"], rows)


def table() -> str:
    """All of them."""
    parts = {
        "From the store against from hard labels": store_table(),
        "Palettes": dkm_table(),
        "Sparsity, from the store": keep_table("store"),
        "Sparsity, from hard labels": keep_table("hard"),
        "Width": width_table(),
        "Subspaces": subspace_table(),
        "What a step costs": steps_table(),
    }
    return "\n\n".join(f"### {name}\n\n{text}" for name, text in parts.items() if text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tune", "run", "alone", "steps", "epochs", "table", "page"])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    arms = asked.arms.split(",")
    if unknown := set(arms) - set(ARMS):
        parser.error(f"--arms: no {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    if asked.what == "alone":
        alone(asked.work)
    elif asked.what == "steps":
        step_costs()
    elif asked.what == "epochs":
        epoch_costs()
    elif asked.what == "table":
        print(table())
    elif asked.what == "page":
        put_table(PAGE, MARK, table())
    else:
        trials = tuning(arms) if asked.what == "tune" else finals(arms)
        run_trials(NAME, trials, train_one, asked.work, asked.processes, MODULE)


if __name__ == "__main__":
    main()

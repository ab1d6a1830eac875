"""Compressed and elastic models from a reinforcement against those from hard labels, on CIFAR-100.

    python -m benchmarks.compression tune     # choose rates and softness on held-back training images
    python -m benchmarks.compression run      # the comparison; every run is a line of docs/results/compression.jsonl
    python -m benchmarks.compression alone    # what is made of the plain networks without training
    python -m benchmarks.compression steps    # what a step of each method costs, against a plain one, in one process
    python -m benchmarks.compression table    # made from that file alone (`page`: into docs/compression.md)

The images, the split, the teacher, the store and the plain student are those of `benchmarks.cifar100` with 10,000
images: make them first by its `teacher` and `reinforce`. Same views, batch, steps, optimizer, schedule and rate for all
that train from scratch; scored once, at the last epoch, on the 10,000 test images. What is in the file is not done
again. `dkm` goes on from the plain network of its own seed and targets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.cifar100 import BATCH, EPOCHS, IMAGES, POLICY, SIZE, STUDENT, test_uri
from benchmarks.imagenette import wrong_labels
from benchmarks.trials import best_rate, figures_on, lines, run_trials
from buttress.weights.settings import DkmSettings, LcsSettings, MethodSettings, SubspaceSettings

NAME, MODULE = "compression", "benchmarks.compression"
WORK = Path(f"build/cifar100-{IMAGES}")
RATES = {"hard": 4e-3, "store": 8e-3}  # as chosen for the plain student by benchmarks.cifar100 tune
SEEDS = (0, 1, 2)
KEEPS = (1.0, 0.5, 0.25, 0.1, 0.025)
DKM_EPOCHS, DKM_RATES, TAUS = 8, (5e-4, 1e-3, 2e-3, 4e-3), (0.02, 0.04, 0.08)
NOISE = 0.2  # share of wrong labels
ARMS: dict[str, MethodSettings | None] = {
    "plain": None,
    "dkm-2": DkmSettings(bits=2),
    "dkm-1": DkmSettings(bits=1),
    "lcs-point": LcsSettings(),
    **{f"target-{keep:g}": LcsSettings(kind="target", low=keep) for keep in KEEPS[1:]},
    "subspace": SubspaceSettings(),
    "lcs-line": LcsSettings(kind="line"),
    "lcs-width": LcsSettings(level="width"),
}
BOTH = ("hard", "store")
WANTED = {  # arm -> what it is trained on; noise = hard labels of which a fifth is wrong
    **dict.fromkeys(("plain", "dkm-2", "dkm-1", "lcs-point", "subspace"), BOTH),
    **{f"target-{keep:g}": ("store",) for keep in KEEPS[1:]},
    **dict.fromkeys(("lcs-line", "lcs-width"), ("store",)),
}


@dataclass(frozen=True)
class Trial:
    """One training. `targets`: hard, store or noise. `phase`: tune scores on held-back images, final on test images.
    `tau`: of dkm.
    """

    phase: str
    arm: str
    targets: str
    seed: int
    lr: float
    epochs: int = EPOCHS[IMAGES]
    tau: float | None = None

    @property
    def name(self) -> str:
        tau = "" if self.tau is None else f"-tau{self.tau:g}"
        return f"{self.phase}-{self.arm}-{self.targets}-{self.lr:g}{tau}-{self.seed}"

    @property
    def method(self) -> MethodSettings | None:
        found = ARMS[self.arm]
        return replace(found, tau=self.tau) if isinstance(found, DkmSettings) and self.tau is not None else found


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
        loaded = run.load_model(level)
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


def tuning() -> list[Trial]:
    """2 bits from the store: the rate at the default softness first, then the softness at 1e-3."""
    found = [Trial("tune", "dkm-2", "store", 0, rate, DKM_EPOCHS, 0.04) for rate in DKM_RATES]
    return found + [Trial("tune", "dkm-2", "store", 0, 1e-3, DKM_EPOCHS, tau) for tau in TAUS if tau != 0.04]


def chosen_dkm() -> tuple[float, float]:
    """Rate and softness of the least NLL on the held-back images."""
    told = [x for x in lines(NAME) if (x["kind"], x.get("phase")) == ("trial", "tune")]
    rate = best_rate([x for x in told if x["tau"] == 0.04], DKM_RATES, "dkm-2")
    soft = {x["tau"]: x["held_back"]["nll"] for x in told if x["lr"] == 1e-3}
    return rate, float(min(soft, key=lambda tau: soft[tau]))


def finals(arms: Sequence[str]) -> list[Trial]:
    """Seed by seed, so that what is there at any time can be compared."""
    found = []
    for seed in SEEDS:
        for arm in arms:
            for targets in WANTED[arm]:
                if arm.startswith("dkm"):
                    rate, tau = chosen_dkm()
                    found.append(Trial("final", arm, targets, seed, rate, DKM_EPOCHS, tau))
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

    there = {line["name"] for line in lines(NAME) if line["kind"] == "alone"}
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
                told("kmeans", bits, lambda bits=bits: clustered(bits))
            for keep in KEEPS[1:]:
                told("pruned", keep, lambda keep=keep: pruned(keep, False))
                told("pruned-bn", keep, lambda keep=keep: pruned(keep, True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tune", "run", "alone"])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    arms = asked.arms.split(",")
    if unknown := set(arms) - set(ARMS):
        parser.error(f"--arms: no {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    if asked.what == "alone":
        alone(asked.work)
    else:
        trials = tuning() if asked.what == "tune" else finals(arms)
        run_trials(NAME, trials, train_one, asked.work, asked.processes, MODULE)


if __name__ == "__main__":
    main()

"""Whole evaluations: the ImageNet classifiers at hand, and what reinforcement changes beside accuracy.

    python -m benchmarks.judging train                       # students of benchmarks.imagenette, hard and reinforced
    python -m benchmarks.judging students                    # judge them: lines of docs/results/judging.jsonl
    python -m benchmarks.judging classifiers [--samples N]   # judge the classifiers, with the time that it takes
    python -m benchmarks.judging page                        # the tables of docs/judging.md, from that file alone

Each is judged by `buttress evaluate --suite full` in a process of its own, on the 500 validation images of Imagenette,
the students with 200 of them for corruptions, shifts and sizes. The documents go to --work, for `buttress report`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from benchmarks import imagenette, record
from benchmarks.trials import Line, data_folder, lines, markdown, put_table, spread

NAME, MODULE = "judging", "benchmarks.judging"
MARK = "<!-- made by `python -m benchmarks.judging page` -->"
PAGE = Path(__file__).parents[1] / "docs" / "judging.md"
CLASSIFIERS = ("mobilenetv2_100", "tf_efficientnet_lite0", "tf_efficientnet_lite2")
ARMS = ("hard", "reinforced")
FIGURES = {
    "top1": "top-1 %",
    "nll": "NLL",
    "ece": "ECE %",
    "ece_scaled": "ECE after temperature %",
    "aurc": "area under risk-coverage %",
    "corruption_error": "error when corrupted %",
    "mce": "mCE, hard labels = 100",
    "shift_camera": "changed by a camera's pixel %",
    "shift_cyclic": "changed by a cyclic pixel %",
}
NATS = ("nll",)
STUDENT_SAMPLES = 200


def runs(work: Path) -> dict[tuple[str, int], Path]:
    """The folder of each student."""
    return {(arm, seed): work / "runs" / trial(arm, seed).name for arm in ARMS for seed in imagenette.SEEDS}


def trial(arm: str, seed: int) -> imagenette.Trial:
    return imagenette.Trial("final", "all", arm, imagenette.chosen_lr("all", arm), seed)


def train(work: Path) -> None:
    """Train the students again where they are not there; the same seeds as those of the table of gains."""
    for (arm, seed), folder in runs(work).items():
        if not (folder / "model.safetensors").exists():
            found = imagenette.train_one(trial(arm, seed), work)
            print(f"{folder.name}: top-1 {found['top1']['value']}, {found['cpu_seconds']} s", flush=True)


def judge(name: str, model: str, samples: int, work: Path, *more: str) -> Line:
    """One evaluation, and its figures with the time that it took; the document stays as WORK/NAME.json."""
    out = work / f"{name}.json"
    words = ["evaluate", model, "--data", f"folder:{data_folder()}/photos/imagenette224/val", "--suite", "full"]
    words += ["--corruption-samples", str(samples), "--out", str(out), *more]
    load, started, before = os.getloadavg()[0], time.perf_counter(), _child_seconds()
    subprocess.run([sys.executable, "-m", "buttress", *words], check=True, stdout=subprocess.DEVNULL)
    seconds = {"wall_seconds": round(time.perf_counter() - started, 1)}
    seconds["cpu_seconds"] = round(_child_seconds() - before, 1)
    document = json.loads(out.read_text())
    figures = {key: value for key, value in document.items() if isinstance(value, dict) and "value" in value}
    threads = document["details"]["cost"][0]["threads"]
    return {"name": name, "samples": samples, "threads": threads, "load_before": load, **seconds, **figures}


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def students(work: Path) -> None:
    """Judge every student that is not yet judged, the reinforced ones against the hard one of their seed."""
    done = {line["name"] for line in lines(NAME)}
    for (arm, seed), folder in runs(work).items():
        name = f"student-{arm}-{seed}"
        if name not in done or (arm == "hard" and not (work / f"{name}.json").exists()):
            more = [] if arm == "hard" else ["--baseline", str(work / f"student-hard-{seed}.json")]
            record(NAME, judge(name, str(folder), STUDENT_SAMPLES, work, *more), MODULE)


def classifiers(work: Path, samples: int, only: str | None) -> None:
    """Judge the classifiers, each time anew."""
    for model in CLASSIFIERS if only is None else (only,):
        uri = f"timm:{model}@{data_folder()}/weights/{model}.fp16.safetensors"
        line = judge(f"{model}-{samples}", uri, samples, work)
        record(NAME, line, MODULE)
        print(f"{line['name']}: {line['wall_seconds']} s", flush=True)


def table() -> str:
    """The classifiers, then the students."""
    return f"{classifier_table()}\n\n{student_table()}"


def student_table() -> str:
    """The students: mean ± standard deviation over the seeds, and the paired difference with its 95 % interval."""
    found = {line["name"]: line for line in lines(NAME) if line["name"].startswith("student-")}
    rows = []
    for key, title in FIGURES.items():
        scale = 1 if key in NATS else 100
        values = {
            arm: np.array([_value(found[f"student-{arm}-{seed}"], key) for seed in imagenette.SEEDS]) for arm in ARMS
        }
        difference = scale * (values["reinforced"] - values["hard"])
        half = student_t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
        digits = 2 if key in NATS else 1
        cells = [spread(list(values[arm]), scale, digits) for arm in ARMS]
        mean = difference.mean()
        rows.append([title, *cells, f"{mean:+.{digits}f} [{mean - half:+.{digits}f}, {mean + half:+.{digits}f}]"])
    return markdown(["", "hard labels", "reinforced", "difference"], rows)


def _value(line: dict[str, Any], key: str) -> float:
    """A hard-labelled student is its own baseline."""
    return 1.0 if key == "mce" and key not in line else float(line[key]["value"])


def classifier_table() -> str:
    """The classifiers, with the time of their last evaluation."""
    rows = []
    last = {line["name"]: line for line in lines(NAME) if not line["name"].startswith("student-")}
    for line in last.values():
        cells = [f"{100 * line[key]['value']:.1f}" for key in ("top1", "ece", "corruption_error", "shift_camera")]
        cost = [f"{line['macs']['value'] / 1e6:.0f}", f"{line['bytes']['value'] / 1e6:.1f}"]
        minutes = f"{int(line['wall_seconds'] // 60)} min {line['wall_seconds'] % 60:.0f} s"
        rows.append([line["name"].rpartition("-")[0], *cells, *cost, str(line["samples"]), minutes])
    heads = ["", "top-1 %", "ECE %", "error when corrupted %", "changed by a camera's pixel %", "MACs, M", "MB"]
    return markdown([*heads, "images corrupted", "whole suite"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("train", "students", "classifiers", "page"))
    parser.add_argument("--work", type=Path, default=Path("build/judging"))
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--only", choices=CLASSIFIERS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.action == "train":
        train(arguments.work)
    elif arguments.action == "students":
        students(arguments.work)
    elif arguments.action == "classifiers":
        classifiers(arguments.work, arguments.samples, arguments.only)
    else:
        put_table(PAGE, MARK, table())


if __name__ == "__main__":
    main()

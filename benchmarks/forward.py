"""Which way teachers answer fastest on this CPU: precision, memory format, torch.compile; processor time a view.

    python -m benchmarks.forward [--record]     # a line of docs/results/forward.jsonl for each teacher
    python -m benchmarks.forward page           # the table, into docs/engine.md

One thread, batches of 32 views, the ways by turns, the median of five rounds. EfficientNet-Lite2 and MobileNetV2 have
their weights (BUTTRESS_DATA), the others, of which the time alone is of interest, random ones. Three to six minutes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.trials import data_folder, lines, markdown, put_table
from buttress.models.processor import cpu_has_bf16
from buttress.teachers import TeacherSpec
from buttress.teachers.forward import FORMATS
from buttress.teachers.teacher import COMPILED, COMPILED_BATCH, Forward, Precision

NAME, MODULE = "forward", "benchmarks.forward"
PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
MARK = "<!-- made by `python -m benchmarks.forward page` -->"
TEACHERS = {
    "tf_efficientnet_lite2": 160,
    "mobilenetv2_100": 160,
    "convnext_tiny": 160,
    "vit_small_patch16_224": 224,
}
BATCH, ROUNDS = COMPILED_BATCH, 5


def uri_of(name: str, work: Path) -> str:
    """With weights of its own, where there are some."""
    file = data_folder() / "weights" / f"{name}.fp16.safetensors"
    if not file.exists():
        import timm
        from safetensors.torch import save_file

        file = work / f"{name}.safetensors"
        save_file(timm.create_model(name).state_dict(), file)
    return f"timm:{name}@{file}"


def measure(name: str, size: int, work: Path) -> dict[str, Any]:
    """Seconds a view of every way, a number a round, and what it takes to start the compiled one."""
    plain = TeacherSpec(uri=uri_of(name, work), size=size, classes="teacher", threads=1)
    views_BHWC = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    precisions: list[Precision] = ["fp32", "bf16"] if cpu_has_bf16() else ["fp32"]
    ways: dict[str, Callable[[], float]] = {}

    def opened(precision: Precision, forward: Forward) -> Callable[[], float]:
        teacher = replace(plain, precision=precision, forward=forward).open()

        def seconds() -> float:
            started = time.process_time()
            teacher.probabilities(views_BHWC)
            return (time.process_time() - started) / BATCH

        return seconds

    for precision, form in product(precisions, FORMATS):
        ways[f"{precision} {form}"] = opened(precision, form)
        ways[f"{precision} {form}"]()
    tried = {way: min(seconds() for _ in range(2)) for way, seconds in ways.items()}
    best = min(tried, key=lambda way: tried[way])
    started = time.perf_counter()
    chosen = next((p, f) for p, f in product(precisions, FORMATS) if f"{p} {f}" == best)
    ways[f"{best}+compiled"] = opened(chosen[0], COMPILED[chosen[1]])
    ways[f"{best}+compiled"]()
    start = time.perf_counter() - started
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, seconds in ways.items():
            found[way].append(seconds())
    return {"kind": "forward", "name": name, "size": size, "seconds": found, "compile_seconds": round(start, 1)}


def table() -> str:
    """Milliseconds a view, and how many times as fast the fastest way is as what is taken without measuring."""
    forms = [f"{precision} {form}" for precision, form in product(("fp32", "bf16"), FORMATS)]
    rows = []
    for name in TEACHERS:
        found = [line for line in lines(NAME) if line["name"] == name]
        if not found:
            continue
        samples = found[-1]["seconds"]
        seconds = {way: statistics.median(told) for way, told in samples.items()}
        plain = "bf16 channels_last" if "bf16 channels_last" in seconds else "fp32 channels_last"
        best = min(seconds, key=lambda way: seconds[way])
        compiled = next(way for way in seconds if way.endswith("compiled"))
        ratios = [a / b for a, b in zip(samples[plain], samples[best], strict=True)]
        rows.append(
            [
                f"{name}, {found[-1]['size']} px",
                *(f"{1e3 * seconds[way]:.1f}" if way in seconds else "" for way in forms),
                f"{1e3 * seconds[compiled]:.1f} ({compiled.removesuffix('+compiled')})",
                f"{found[-1]['compile_seconds']:.0f} s",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        )
    return markdown(["ms a view", *forms, "compiled", "its start", "unmeasured / fastest"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="measure", choices=["measure", "page"])
    parser.add_argument("--record", action="store_true", help=f"append to docs/results/{NAME}.jsonl")
    asked = parser.parse_args()
    if asked.what == "page":
        put_table(PAGE, MARK, table())
        return
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        for name, size in TEACHERS.items():
            line = measure(name, size, Path(temporary))
            print(name, {way: f"{1e3 * statistics.median(told):.1f} ms" for way, told in line["seconds"].items()})
            if asked.record:
                record(NAME, line, MODULE)


if __name__ == "__main__":
    main()

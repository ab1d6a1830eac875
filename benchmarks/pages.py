"""How large the browser of views is for 1,000 photographs, and how fast Chromium opens it.

    python -m benchmarks.pages --record    # labels 1,500 photographs once into --work; docs/results/pages.jsonl

The page shows 1,000 of the 1,500 training photographs of Imagenette with four views each. Times are from the call to
the first card that is drawn, and to the end of loading, each in a new and headless browser context.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.trials import data_folder

TEACHER = "mobilenetv2_100"
SAMPLES, VIEWS, LOADS = 1000, 4, 7


def make(work: Path) -> tuple[Path, float]:
    """The page, and how many seconds `inspect` took for it."""
    source = f"folder:{data_folder()}/photos/imagenette224/train"
    teacher = f"timm:{TEACHER}@{data_folder()}/weights/{TEACHER}.fp16.safetensors"
    store, page = work / "store", work / "views.html"
    if not (store / "reinforcement.json").exists():
        call("reinforce", "--source", source, "--teacher", teacher, "--views", str(VIEWS), "--out", str(store))
    started = time.perf_counter()
    call("inspect", str(store), "--source", source, "--samples", str(SAMPLES), "--out", str(page))
    return page, time.perf_counter() - started


def call(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "buttress", *words], check=True, stdout=subprocess.DEVNULL)


def opened(page: Path) -> list[dict[str, float]]:
    """Seconds to the first card and to the end of loading, of each time that it is opened."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    assert program is not None, "no Chromium on the PATH"
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(LOADS):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab, started = context.new_page(), time.perf_counter()
            tab.goto(page.resolve().as_uri(), wait_until="commit")
            tab.wait_for_selector("#cards img[src], .card img[src]")
            first = time.perf_counter() - started
            tab.wait_for_load_state("load")
            found.append({"first_card": round(first, 3), "loaded": round(time.perf_counter() - started, 3)})
            context.close()
        browser.close()
    return found


def measure(work: Path) -> dict[str, Any]:
    load = os.getloadavg()[0]
    page, seconds = make(work)
    loads = opened(page)
    return {
        "samples": SAMPLES,
        "views": VIEWS,
        "bytes": page.stat().st_size,
        "make_seconds": round(seconds, 1),
        "loads": loads,
        "median": {name: statistics.median(each[name] for each in loads) for name in ("first_card", "loaded")},
        "load_before": load,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--work", type=Path, default=Path("build/pages"))
    parser.add_argument("--record", action="store_true", help="append to docs/results/pages.jsonl")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    line = measure(arguments.work)
    print(json.dumps(line, indent=1))
    if arguments.record:
        record("pages", line, "benchmarks.pages")


if __name__ == "__main__":
    main()

"""What keeping freed memory, and asking for huge pages, brings on this CPU: processor time of a training step and a
teacher's forward pass.

    python -m benchmarks.memory           # a line of docs/results/memory.jsonl
    python -m benchmarks.memory page      # the table, into docs/engine.md

A process for each way, by turns, one thread; in each the median of its rounds after a warm-up; of the turns the median
of the ratios. The step is that of timm's mobilenetv3_small_050 and test_resnet, the teacher EfficientNet-Lite2. About 5
minutes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import record
from benchmarks.trials import lines, markdown, put_table
from buttress.memory import keep_freed_memory

NAME, MODULE = "memory", "benchmarks.memory"
PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
MARK = "<!-- made by `python -m benchmarks.memory page` -->"
WAYS = {
    "as the system gives it": "plain",
    "freed memory is kept": "kept",
    "and is asked for in huge pages": "huge",
}
# name: network, batch, side, whether it is trained
WORK = {
    "step of mobilenetv3_small_050, 32 views of 224 px": ("mobilenetv3_small_050", 32, 224, True),
    "step of test_resnet, 64 views of 64 px": ("test_resnet", 64, 64, True),
    "forward pass of tf_efficientnet_lite2, 32 views of 160 px": ("tf_efficientnet_lite2", 32, 160, False),
}
TURNS, ROUNDS, WARM = 5, 7, 3


def measure(way: str, network: str, batch: int, side: int, trained: bool) -> float:
    """Seconds of this process a step or pass, the memory being got in that way."""
    if way != "plain":
        assert keep_freed_memory(huge_pages=way == "huge")
    import timm
    import torch

    torch.set_num_threads(1)
    model = timm.create_model(network).to(memory_format=torch.channels_last).train(trained)
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    work: Callable[[], None] = step if trained else forward
    found = []
    for number in range(WARM + ROUNDS):
        begun = time.process_time()
        work()
        if number >= WARM:
            found.append(time.process_time() - begun)
    return statistics.median(found)


def compare() -> None:
    for name, work in WORK.items():
        seconds: dict[str, list[float]] = {way: [] for way in WAYS.values()}
        for _ in range(TURNS):
            for way in seconds:
                command = [sys.executable, "-m", MODULE, "one", json.dumps([way, *work])]
                seconds[way].append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        ratios = {way: [a / b for a, b in zip(told, seconds["plain"], strict=True)] for way, told in seconds.items()}
        record(NAME, {"kind": "memory", "name": name, "seconds": seconds, "ratios": ratios}, MODULE)
        print(name, {way: round(statistics.median(told), 3) for way, told in ratios.items()})


def table() -> str:
    found = {line["name"]: line["ratios"] for line in lines(NAME)}
    rows = []
    for name in WORK:
        if name in found:
            told = [found[name][way] for way in WAYS.values()]
            rows.append([name, *(f"{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in told[1:])])
    return markdown(["of the time as the system gives memory", *list(WAYS)[1:]], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(measure(*json.loads(sys.argv[2])))
    elif sys.argv[1:] == ["page"]:
        put_table(PAGE, MARK, table())
    else:
        compare()

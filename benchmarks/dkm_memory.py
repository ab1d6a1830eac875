"""What a training step of ResNet-18 with palettes of 16 takes: memory and time.

    python -m benchmarks.dkm_memory [--bits 4] [--record]    # about 1 minute; docs/results/dkm_memory.jsonl

One step of timm's resnet18 (100 classes, 64 px, batch 16) after the start by k-means: update of the palettes, forward,
backward, SGD. The peak is of the whole process, libraries included. Whole, the attentions of one pass would take
11.2 million x 2^bits x 3 iterations x 4 bytes: 2.1 GB at 4 bits, several times over in what autograd keeps.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable

import timm
import torch
from torch.nn import functional
from torch.nn.utils import parametrize

from benchmarks import record
from buttress.weights.dkm import Dkm
from buttress.weights.settings import DkmSettings

MUST_GB = 4.0
BATCH, SIZE, CLASSES = 16, 64, 100


def measure(bits: int) -> dict[str, float]:
    """Seconds of each part of a step, and the process' peak in GB (1e9 bytes)."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=CLASSES).train()
    method, found = Dkm(DkmSettings(bits=bits)), {}

    def timed(name: str, work: Callable[[], object]) -> None:
        started = time.process_time()
        work()
        found[name] = time.process_time() - started

    timed("prepare_s", lambda: method.prepare(model))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (BATCH,))
    losses = []

    def forward() -> None:
        with parametrize.cached():
            losses.append(functional.cross_entropy(model(images), labels))

    timed("before_step_s", lambda: method.before_step(0, 1, torch.Generator()))
    timed("forward_s", forward)
    timed("backward_s", losses[0].backward)
    timed("optimizer_s", optimizer.step)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


def main() -> int:
    """Measure, print, and record where asked; returns 1 where the bound does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bits", type=int, default=4, help="of an index, 1..8")
    parser.add_argument("--record", action="store_true", help="append the figures to docs/results/dkm_memory.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(arguments.bits)
    for name, value in figures.items():
        print(f"{name:16}{value:8.2f}")
    holds = figures["peak_gb"] < MUST_GB
    print(f"peak below {MUST_GB:g} GB: {'holds' if holds else 'FAILS'}")
    if arguments.record:
        line = {"model": "resnet18", "classes": CLASSES, "size": SIZE, "batch": BATCH, "bits": arguments.bits}
        assert __spec__ is not None
        record("dkm_memory", line | {"figures": figures, "must_gb": MUST_GB}, __spec__.name)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

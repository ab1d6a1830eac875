"""What labelling costs beside the teacher's forward pass, which is all that it cannot do without.

    python -m benchmarks.labelling [--json FILE] [--record]

CPU time of this process, one thread, by turns block by block, the median of the paired ratios: blocks of 32 photographs
of ImageNet at their own sizes (BUTTRESS_DATA) in 4 views each, from the files to the checked file of records, beside
the bare network on as many batches of ready floats, as timm makes it. The teacher is a small one, EfficientNet-Lite0
at 224 px: a larger one hides more. `packed`: the same photographs packed. `share_of_folded`: of the network as teachers
are opened, with its batch norms folded into the convolutions. About 3 minutes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ratios import Figure, asked, by_turns, over, told
from benchmarks.trials import data_folder
from buttress.labelling.block import LabelJob, label_block
from buttress.labelling.plan import Block, Rectangle
from buttress.memory import keep_freed_memory
from buttress.sources import Source, open_source
from buttress.sources.identity import id_hashes
from buttress.sources.packing import PackSettings, pack_source
from buttress.teachers import EnsembleSpec, TeacherSpec
from buttress.views.presets import preset

TEACHER = "tf_efficientnet_lite0"
IMAGES, VIEWS, BATCH, PER_BLOCK, ROUNDS = 64, 4, 32, 32, 5
Way = Callable[[range], int]


def job_of(source: Source, uri: str, work: Path) -> LabelJob:
    """Labelling as `buttress reinforce` sets it up."""
    spec = EnsembleSpec.of(TeacherSpec(uri=uri, classes="teacher", threads=1, precision="fp32"))
    opened = spec.open()
    return LabelJob(
        source=source,
        order=np.arange(len(source)),
        hashes=id_hashes(source.ids),
        teacher=spec,
        policy=preset("randaug"),
        seed=0,
        k=10,
        classes=1000,
        sizes=opened.sizes,
        batch=BATCH,
        digest="0" * 64,
        work=work,
        partners=0,
        opened=[opened],
    )


def labelled(job: LabelJob) -> Way:
    """Blocks of rows, each into a new file."""

    def way(span: range) -> int:
        shutil.rmtree(job.work, ignore_errors=True)
        area = Rectangle(first_row=span.start, stop_row=span.stop, first_view=0, stop_view=VIEWS)
        label_block(Block(part="part-00000-v0000", number=span.start, area=area), job)
        return area.size

    return way


def bare(job: LabelJob, *, folded: bool = False) -> Way:
    """The network alone, in the memory format that it is fastest in: as timm makes it, or as a teacher is opened."""
    from buttress.models.batch_norm import without_batch_norms
    from buttress.models.load import load_model

    fastest: Any = {"memory_format": torch.channels_last}
    plain = load_model(job.teacher.members[0].uri).module.eval()
    model = without_batch_norms(plain, job.sizes[0]) if folded else plain
    assert folded == (model is not plain)
    model.to(**fastest)
    images = torch.randn(BATCH, 3, job.sizes[0], job.sizes[0]).contiguous(**fastest)

    def way(span: range) -> int:
        with torch.inference_mode():
            for _ in range(len(span) * VIEWS // BATCH):
                model(images)
        return len(span) * VIEWS

    return way


def main() -> int:
    """Measure, print, and write the figures where asked; returns 1 where a bound does not hold."""
    arguments = asked(__doc__, "labelling")
    torch.set_num_threads(1)
    keep_freed_memory()  # as commands do; of those beside ours too
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        raw = open_source(f"folder:{data_folder() / 'photos' / 'imagenet1k_sample' / 'val'}", labels=False)
        pack_source(raw, PackSettings(), work / "packed", workers=0)
        packed = open_source(f"packed:{work / 'packed'}", labels=False)
        uri = f"timm:{TEACHER}@{data_folder() / 'weights' / f'{TEACHER}.fp16.safetensors'}"
        raw_job, packed_job = job_of(raw, uri, work / "a"), job_of(packed, uri, work / "b")
        ways = {"raw": labelled(raw_job), "packed": labelled(packed_job), "bare": bare(raw_job)}
        ways["folded"] = bare(raw_job, folded=True)
        us = by_turns(ways, IMAGES, PER_BLOCK, ROUNDS)
    for name, samples in us.items():
        print(f"{name:20}{np.median(samples) / 1e3:9.2f} ms a view")
    lines = [
        Figure("labelling.share", over(us["bare"], us["raw"]), "higher", 0.90, 0.97),
        Figure("labelling.share.packed", over(us["bare"], us["packed"]), "higher"),
        Figure("labelling.share_of_folded", over(us["folded"], us["raw"]), "higher"),
    ]
    return told(lines, "labelling", to=arguments.json, recorded=arguments.record, raw={"us": us})


if __name__ == "__main__":
    sys.exit(main())

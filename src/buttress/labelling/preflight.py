"""Before the long work: is there room, how long will it take, and does the teacher know these images at all?"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import LabellingError
from buttress.labelling.identity import Identity
from buttress.labelling.looks import Views, WaitingViews, views_at_sizes
from buttress.labelling.settings import LabelSettings
from buttress.sources import Source, UndecodableImage, id_hash
from buttress.store.codec import TopKLog8
from buttress.teachers.ensemble import Ensemble
from buttress.teachers.sanity import agreement, near_chance, sanity_line
from buttress.terminal import note, warn
from buttress.views.policy import Policy
from buttress.views.presets import eval_policy
from buttress.views.render import Picture, Renderer

SANITY_IMAGES = 256
SANITY_CROP = 0.875
DRY_RUN_VIEWS = 64
BYTES_PER_SAMPLE = 24  # id hash, hard label, content hash and place in the index
FIXED_BYTES = 64 * 1024 + 16 * 64 * 64 * 3


def store_bytes(label_bytes: int, samples: int) -> int:
    """Bytes of a finished reinforcement."""
    return label_bytes + BYTES_PER_SAMPLE * samples + FIXED_BYTES


def told_bytes(labels: int, a_view: int, size: int) -> str:
    """The two parts of a size: labels, which grow with every view, and what lies beside them, which does not.

    Args:
        labels: their bytes.
        a_view: bytes of one view's labels.
        size: bytes in all.
    """
    beside = f"{_bytes(size - labels)} of ids, index and probe views"
    return f"{_bytes(size)}: {_bytes(labels)} of labels ({a_view} a view) and {beside}"


def check_disk(out: Path, label_bytes: int, samples: int) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        out: where it will lie.
        label_bytes: of the blocks still to be made and of all parts: while it works, labels lie there twice.
        samples: rows.

    Raises:
        LabellingError: too little room.
    """
    needed, free = store_bytes(label_bytes, samples), shutil.disk_usage(out).free
    if needed > free:
        raise LabellingError(
            f"{out}: labelling needs {_bytes(needed)} of disk while it works, and {_bytes(free)} are free; "
            "make room, lower --views, or choose another --out"
        )


def sanity(source: Source, teacher: Ensemble, identity: Identity) -> None:
    """Print how often the teacher agrees with the labels, and how sure it is of other classes, on some plain views."""
    comparable = source.classes is not None and tuple(source.classes) == identity.classes
    labelled = np.flatnonzero(np.asarray(source.labels) >= 0) if comparable else np.arange(0)
    if not len(labelled) and not any(said["class_map"] for said in teacher.describe()):
        return
    usable = labelled if len(labelled) else np.arange(len(source))
    chosen = usable[np.linspace(0, len(usable) - 1, min(SANITY_IMAGES, len(usable))).astype(np.int64)]
    agree = seen = 0
    plain = eval_policy(teacher.sizes[0], SANITY_CROP, "bilinear")
    for views, kept in _plain_batches(source, chosen, plain, teacher.sizes):
        hits, count = agreement(teacher.probabilities(views), np.asarray(source.labels)[kept])
        agree, seen = agree + hits, seen + count
    if len(labelled):
        line = sanity_line(agree, seen, len(identity.classes))
        (warn if seen and near_chance(agree, seen, len(identity.classes)) else note)(line)
    if teacher.unmapped_share > 0:
        share = f"{teacher.unmapped_share:.1%} of the teacher's probability"
        note(f"{share} falls on classes you do not have; it is renormalised away")


def _plain_batches(
    source: Source, chosen: NDArray[np.int64], policy: Policy, sizes: Sequence[int], batch: int = 32
) -> Iterator[tuple[Views, NDArray[np.int64]]]:
    renderer = Renderer(policy, 0)
    for first in range(0, len(chosen), batch):
        waiting, kept = WaitingViews(sizes), []
        for index in chosen[first : first + batch].tolist():
            try:
                waiting.add(views_at_sizes(renderer, _picture(source, index), [0], sizes)[1])
            except UndecodableImage:
                continue
            kept.append(index)
        if kept:
            yield waiting.batch(0, batch), np.array(kept)


def estimate(
    source: Source,
    teacher: Ensemble,
    identity: Identity,
    settings: LabelSettings,
    missing: int,
    workers: int,
    out: Path,
    *,
    ahead: bool,
) -> list[str]:
    """What labelling the `missing` views would take, from 64 views labelled here and now.

    `ahead`: the workers draw views, and this process asks the teacher meanwhile.
    """
    per_image = min(settings.views, DRY_RUN_VIEWS)
    images = min(max(1, DRY_RUN_VIEWS // per_image), len(source))
    renderer, count = Renderer(identity.policy, identity.seed, len(source)), 0
    pixels = WaitingViews(teacher.sizes)
    started = time.perf_counter()
    pictures = partial(_picture, source)  # row i is taken for sample i: it is the time that counts
    for index in np.linspace(0, len(source) - 1, images).astype(np.int64).tolist():
        try:
            pixels.add(views_at_sizes(renderer, pictures(index), range(per_image), teacher.sizes, pictures)[1])
        except UndecodableImage:
            continue
    rendered = time.perf_counter()
    if not len(pixels):
        raise LabellingError(f"{source.uri}: none of {images} images looked at can be decoded")
    teacher.probabilities(pixels.batch(0, settings.batch))  # the first call is slower
    warmed = time.perf_counter()
    for first in range(0, len(pixels), settings.batch):
        count += len(teacher.probabilities(pixels.batch(first, settings.batch)))
    processes = max(1, min(workers, os.cpu_count() or 1))
    drawing, asking = (rendered - started) / count, (time.perf_counter() - warmed) / count
    each = max(drawing / processes, asking) if ahead and workers else (drawing + asking) / processes
    stride = TopKLog8(identity.k, len(identity.classes)).stride + identity.has_truth
    sizes = " and ".join(map(str, teacher.sizes))
    where = next(path for path in (out, *out.absolute().parents) if path.exists())
    return [
        f"{len(source):,} samples x {settings.views} views of {sizes} pixels; {missing:,} views are missing",
        f"time    about {_duration(missing * each)} in {processes} processes ({1 / each:,.0f} views/s)",
        f"bytes   {told_bytes(missing * stride, stride, store_bytes(missing * stride, len(source)))}",
        f"disk    {_bytes(shutil.disk_usage(where).free)} free at {where}",
    ]


def _picture(source: Source, index: int) -> Picture:
    sample = source[index]
    return sample.data, id_hash(sample.id)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

"""Label a source: plan, check, run what is missing, assemble, write the card last.

Started again it goes on where it was; with more views or more images it adds to what is there; nothing that is
finished is done twice, and no part that exists is touched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import LabellingError, SourceError
from buttress.labelling.block import LabelJob, block_path, read_block
from buttress.labelling.growth import WORK, Growth, plan_growth
from buttress.labelling.identity import Identity
from buttress.labelling.plan import Block, PartPlan, Rectangle, blocks_of, missing_parts
from buttress.labelling.pool import run_blocks
from buttress.labelling.preflight import check_disk, estimate, sanity
from buttress.labelling.settings import LabelSettings
from buttress.sources import Source
from buttress.store.card import Card, PartEntry, Probes, standard_fields
from buttress.store.codec import TopKLog8
from buttress.store.writer import PartColumns, write_card, write_index, write_part, write_probes
from buttress.teachers.teacher import Teacher, TeacherSpec
from buttress.terminal import note, progress, warn
from buttress.versions import library_versions
from buttress.views.policy import Policy
from buttress.views.probes import probe_views

TEACHER_THREADS = 1  # per process: cores are filled with processes, so the bytes do not depend on how many there are


def label_source(
    source: Source,
    teacher: TeacherSpec,
    policy: Policy,
    settings: LabelSettings,
    out: Path,
    *,
    dry_run: bool = False,
) -> None:
    """Store in `out` what the teacher says about `settings.views` views of every sample.

    Args:
        source: the images; labels are not needed.
        teacher: how to open the teacher.
        policy: the augmentation.
        settings: views, k, seed, batch, workers, max_bad.
        out: folder of the reinforcement; made, gone on with, or added to.
        dry_run: label 64 views, print time, bytes and free disk, and write nothing.

    Raises:
        LabellingError: settings differ from those of what is there; no room on the disk; too many bad images.
        SourceError: two ids with one hash; a sample that changed.
    """
    opened = replace(teacher, threads=TEACHER_THREADS).open()
    identity = Identity.of(source, opened, policy, settings)
    if dry_run:
        for line in estimate(source, opened, identity, settings, workers_of(settings), out):
            print(line)
        return
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _Labelling(source, opened, identity, settings, out).run()


def workers_of(settings: LabelSettings) -> int:
    """Labelling processes: what was asked for, else one per core that this process may use."""
    return len(os.sched_getaffinity(0)) if settings.workers is None else settings.workers


class _Labelling:
    """One labelling under way."""

    def __init__(
        self, source: Source, teacher: Teacher, identity: Identity, settings: LabelSettings, out: Path
    ) -> None:
        self.source, self.teacher, self.identity, self.settings, self.out = source, teacher, identity, settings, out
        self.growth: Growth = plan_growth(source, identity, settings.views, out)
        self.stride = TopKLog8(identity.k, len(identity.classes)).stride
        areas = [(part.row_block, Rectangle(*part.rows, *part.views)) for part in self.growth.parts]
        self.plans = missing_parts(areas, len(self.growth.order), self.growth.views, self.stride)
        self.skipped = set() if self.growth.before is None else set(self.growth.before.card.skipped)
        self.job = LabelJob(
            source=source,
            order=self.growth.order,
            teacher=teacher.spec,
            policy=identity.policy,
            seed=identity.seed,
            k=identity.k,
            classes=len(identity.classes),
            size=teacher.size,
            batch=settings.batch,
            digest=identity.digest,
            work=out / WORK,
            opened=[teacher],
        )

    def run(self) -> None:
        """Do what is missing."""
        views, before = sum(plan.area.size for plan in self.plans), self.growth.before
        if not views and before is not None:
            shutil.rmtree(self.out / WORK)
            note(f"{self.out}: nothing to do, {before.rows:,} samples x {before.views} views are there")
            return
        check_disk(self.out, views * self.stride, len(self.growth.order))
        sanity(self.source, self.teacher, self.identity)
        parts = list(self.growth.parts)
        with progress("labelling", views, "views") as bar:
            for plan in self.plans:
                parts.append(self._label_part(plan, bar.advance))
        self._finish(parts)

    def _label_part(self, plan: PartPlan, advance: Callable[[int], None]) -> PartEntry:
        blocks = blocks_of(plan, self.settings.views_per_block)
        for block, path in run_blocks(blocks, self.job, workers_of(self.settings)):
            done = read_block(path, block, self.job)
            if done is None:
                raise LabellingError(f"{path}: cannot be read back; run the same command again")
            self._count_skipped(block, done.content_hashes_N)
            advance(block.area.size)
        return self._assemble(plan, blocks)

    def _count_skipped(self, block: Block, contents_N: NDArray[np.uint64]) -> None:
        rows = np.flatnonzero(contents_N == 0) + block.area.first_row
        fresh = {self.source.ids[int(self.growth.order[row])] for row in rows} - self.skipped
        for sample_id in sorted(fresh):
            warn(f"{sample_id}: image cannot be decoded, left out")
        self.skipped |= fresh
        total = len(self.growth.order)
        if len(self.skipped) > self.settings.max_bad * total:
            raise LabellingError(
                f"{len(self.skipped)} of {total:,} images cannot be decoded, more than --max-bad allows "
                f"({self.settings.max_bad:.2%}; e.g. {min(self.skipped)}); repair or remove them, or raise --max-bad; "
                "what is labelled is kept"
            )

    def _assemble(self, plan: PartPlan, blocks: Sequence[Block]) -> PartEntry:
        area = plan.area
        labels_VNS = np.empty((area.views, area.rows, self.stride), np.uint8)
        contents_N = np.zeros(area.rows, np.uint64)
        for block in blocks:
            done = read_block(block_path(block, self.job.work), block, self.job)
            if done is None:
                raise LabellingError(f"{self.out}: a finished block was damaged; run the same command again")
            rows = slice(block.area.first_row - area.first_row, block.area.stop_row - area.first_row)
            views = slice(block.area.first_view - area.first_view, block.area.stop_view - area.first_view)
            labels_VNS[views, rows] = done.labels_VNS
            contents_N[rows] = done.content_hashes_N
        self._refuse_changed(area, contents_N)
        entry = write_part(
            self.out,
            row_block=plan.row_block,
            first_row=area.first_row,
            first_view=area.first_view,
            labels_VNS=labels_VNS,
            columns=self._columns(area, contents_N) if area.first_view == 0 else None,
            settings_digest=self.identity.digest,
        )
        shutil.rmtree(self.job.work / plan.name)
        return entry

    def _columns(self, area: Rectangle, contents_N: NDArray[np.uint64]) -> PartColumns:
        rows = slice(area.first_row, area.stop_row)
        return PartColumns(
            id_hashes=self.growth.hashes[rows],
            hard_labels=np.asarray(self.source.labels)[self.growth.order[rows]],
            content_hashes=contents_N,
        )

    def _refuse_changed(self, area: Rectangle, contents_N: NDArray[np.uint64]) -> None:
        before = self.growth.before
        if area.first_view == 0 or before is None:
            return
        changed = np.flatnonzero(before.content_hashes[area.first_row : area.stop_row] != contents_N)
        if len(changed):
            name = self.source.ids[int(self.growth.order[area.first_row + int(changed[0])])]
            raise SourceError(
                f"{name}: the image has changed since its first views were labelled ({len(changed)} such images); "
                "restore it, or label anew into another --out"
            )

    def _finish(self, parts: list[PartEntry]) -> None:
        probes = probe_views(self.identity.policy, self.identity.seed)
        versions = library_versions()
        drawing = {name: versions[name] for name in ("buttress", "numpy", "opencv-python-headless")}
        card = Card(
            **self.identity.values(),
            views=self.growth.views,
            probes=Probes(sha256=write_probes(self.out, probes), versions=drawing),
            source=self.growth.info,
            fields=standard_fields(self.identity.k, len(self.identity.classes)),
            versions=versions,
            skipped=tuple(sorted(self.skipped)),
            parts=tuple(sorted(parts, key=lambda part: (part.row_block, part.views))),
        )
        write_index(self.out, self.growth.hashes)
        write_card(self.out, card)
        shutil.rmtree(self.out / WORK)
        size = sum(file.stat().st_size for file in self.out.iterdir())
        views = card.views * card.source.count
        note(
            f"{self.out}: {card.source.count:,} samples x {card.views} views, "
            f"{size:,} bytes ({size / views:.1f} a view)"
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends."""
    (out / WORK).mkdir(exist_ok=True)
    path = out / WORK / "lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as failure:
            raise LabellingError(
                f"{out}: another process is labelling into it; wait for it, or choose another --out"
            ) from failure
        yield

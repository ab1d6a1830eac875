"""Label a source: plan, check, run what is missing, assemble, write the card last.

Started again it goes on where it was; with more views or more images it adds to what is there; nothing that is
finished is done twice, and no part that exists is touched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
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
        for line in estimate(source, opened, identity, settings, workers_of(settings, opened), out):
            print(line)
        return
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _Labelling(source, opened, identity, settings, out).run()


def workers_of(settings: LabelSettings, teacher: Teacher) -> int:
    """Labelling processes: what was asked for, else one per core; on a GPU this process alone, which fills it best."""
    if settings.workers is not None:
        return settings.workers
    if teacher.describe().get("device") == "cuda":
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Labelling:
    """One labelling under way."""

    def __init__(
        self, source: Source, teacher: Teacher, identity: Identity, settings: LabelSettings, out: Path
    ) -> None:
        self.source, self.teacher, self.identity, self.settings, self.out = source, teacher, identity, settings, out
        self.growth: Growth = plan_growth(source, identity, settings.views, out)
        self.stride = TopKLog8(identity.k, len(identity.classes)).stride
        self.plans = missing_parts(self.growth.spans, self.growth.areas(), self.growth.views, self.stride)
        self.skipped = set(self.growth.skipped)
        self.job = LabelJob(
            source=source,
            order=self.growth.order,
            hashes=self.growth.hashes,
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
        if self.growth.finished:
            rows, views = len(self.growth.order), self.growth.views
            note(f"{self.out}: nothing to do, {rows:,} samples x {views} views are there")
            return
        views = sum(plan.area.size for plan in self.plans)
        if views:
            check_disk(self.out, views * self.stride, len(self.growth.order))
            sanity(self.source, self.teacher, self.identity)
        self._finish([*self.growth.parts, *self._label(views)])

    def _label(self, views: int) -> list[PartEntry]:
        """Label all that is missing, assembling each part when its last block is done."""
        plans = {plan.name: plan for plan in self.plans}
        blocks = {name: blocks_of(plan, self.settings.views_per_block) for name, plan in plans.items()}
        left = {name: len(cut) for name, cut in blocks.items()}
        every = [block for cut in blocks.values() for block in cut]
        for block in every:
            self._forget_bad(block)
        parts = []
        with progress("labelling", views, "views") as bar:
            for block, path in run_blocks(every, self.job, workers_of(self.settings, self.teacher)):
                self._check(block, path)
                bar.advance(block.area.size)
                left[block.part] -= 1
                if not left[block.part]:
                    parts.append(self._assemble(plans[block.part], blocks[block.part]))
        return parts

    def _forget_bad(self, block: Block) -> None:
        """A finished block with undecodable images is done again: they may have been repaired since."""
        path = block_path(block, self.job.work)
        done = read_block(path, block, self.job)
        if done is not None and (done.content_hashes_N == 0).any():
            path.unlink()

    def _check(self, block: Block, path: Path) -> None:
        done = read_block(path, block, self.job)
        if done is None:
            raise LabellingError(f"{path}: cannot be read back; run the same command again")
        self._refuse_changed(block, path, done.content_hashes_N)
        rows = np.flatnonzero(done.content_hashes_N == 0) + block.area.first_row
        fresh = {self.source.ids[int(self.growth.order[row])] for row in rows} - self.skipped
        for sample_id in sorted(fresh):
            warn(f"{sample_id}: image cannot be decoded, left out")
        self.skipped |= fresh
        total = len(self.growth.order)
        if len(self.skipped) > self.settings.max_bad * total:
            raise LabellingError(
                f"{len(self.skipped)} of {total:,} images cannot be decoded, more than --max-bad allows "
                f"({self.settings.max_bad:.2%}; e.g. {min(self.skipped)}); repair them, raise --max-bad, or remove them"
            )

    def _refuse_changed(self, block: Block, path: Path, contents_N: NDArray[np.uint64]) -> None:
        known_N = self.growth.contents[block.area.first_row : block.area.stop_row]
        changed = np.flatnonzero((known_N != contents_N) & (known_N != 0))
        if len(changed):
            path.unlink()  # made of the changed image, and so of no use when it is restored
            name = self.source.ids[int(self.growth.order[block.area.first_row + int(changed[0])])]
            raise SourceError(
                f"{name}: the image has changed since its first views were labelled; restore it, or label anew into "
                "another --out"
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
        if any(part.row_block == plan.row_block and part.views[0] == 0 for part in self.growth.parts):
            # What could not be decoded for the first views has no labels in later ones, even if repaired since.
            labels_VNS[:, self.growth.contents[area.first_row : area.stop_row] == 0] = 0
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
        for folder in (self.out / WORK).iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
        size = sum(file.stat().st_size for file in self.out.iterdir() if file.is_file())
        views = card.views * card.source.count
        note(
            f"{self.out}: {card.source.count:,} samples x {card.views} views, "
            f"{size:,} bytes ({size / views:.1f} a view)"
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder for this process, and leave no `.work` behind once it is empty.

    The lock goes with the process, however it ends. A lock file that has been removed
    since it was opened is no lock.
    """
    path = out / WORK / "lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                raise BlockingIOError
        except BlockingIOError as failure:
            raise LabellingError(
                f"{out}: another process is labelling into it; wait for it, or choose another --out"
            ) from failure
        try:
            yield
        finally:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()

"""Label a source: plan, check, run what is missing, assemble, write the card last.

Started again it goes on where it was; with more views or more images it adds to what is there; nothing that is
finished is done twice, and no part that exists is touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import LabellingError, SourceError
from buttress.files import require_own_folder, write_atomic, write_json
from buttress.labelling.ahead import label_ahead
from buttress.labelling.block import BlockLabels, LabelJob, block_path, read_block
from buttress.labelling.growth import STARTED, WORK, Growth, plan_growth, teachers_there
from buttress.labelling.identity import Identity
from buttress.labelling.plan import Block, PartPlan, Rectangle, blocks_of, missing_parts
from buttress.labelling.pool import run_blocks
from buttress.labelling.preflight import check_disk, estimate, sanity, told_bytes
from buttress.labelling.row_memory import MEMORY
from buttress.labelling.settings import LabelSettings
from buttress.labelling.truth import labels_of_rows
from buttress.processes import cores
from buttress.sources import Source
from buttress.store.card import Card, PartEntry, Probes
from buttress.store.card_file import CARD_NAME
from buttress.store.codec import TopKLog8
from buttress.store.damage import DamageError
from buttress.store.probes import probes_bytes
from buttress.store.reader import Reinforcement
from buttress.store.rendering import check_renderer
from buttress.store.rows import index_is_whole
from buttress.store.writer import (
    PartColumns,
    is_ours,
    remove_leftovers,
    write_card,
    write_index,
    write_part,
    write_probes,
)
from buttress.teachers.ensemble import Ensemble, EnsembleSpec
from buttress.teachers.forward import settled
from buttress.teachers.teacher import TeacherSpec
from buttress.terminal import note, progress, warn
from buttress.versions import library_versions
from buttress.views.policy import Policy
from buttress.views.probes import probe_views

TEACHER_THREADS = 1  # per process: cores are filled with processes, so the bytes do not depend on how many there are


def label_source(
    source: Source,
    teacher: TeacherSpec | EnsembleSpec,
    policy: Policy,
    settings: LabelSettings,
    out: Path,
    *,
    dry_run: bool = False,
) -> None:
    """Store in `out` what the teacher says about `settings.views` views of every sample.

    Args:
        source: the images; labels are not needed.
        teacher: how to open the teacher, or several.
        policy: the augmentation.
        settings: views, k, seed, batch, workers, max_bad, truth.
        out: folder of the reinforcement; made, gone on with, or added to.
        dry_run: label 64 views, print time, bytes and free disk, and write nothing.

    Raises:
        LabellingError: settings differ from those of what is there; no room on the disk; too many bad images.
        SourceError: two ids with one hash; a sample that changed.
    """
    if not (out / CARD_NAME).exists():  # what lies beside a reinforcement is the user's own affair
        require_own_folder(out, is_ours, "a reinforcement")
    asked = EnsembleSpec.of(teacher).with_threads(TEACHER_THREADS)
    opened = settled(asked, len(source) * settings.views, workers_of(settings), teachers_there(out)).open()
    for doubt in opened.doubts:
        warn(doubt)
    identity = Identity.of(source, opened, policy, settings)
    if dry_run:
        growth = plan_growth(source, identity, settings.views, out)
        views = sum(plan.area.size for plan in _plans(growth, identity))
        workers = workers_of(settings)
        for line in estimate(source, opened, identity, settings, views, workers, out, ahead=on_gpu(opened)):
            print(line)
        return
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _Labelling(source, opened, identity, settings, out).run()


def _plans(growth: Growth, identity: Identity) -> list[PartPlan]:
    stride = TopKLog8(identity.k, len(identity.classes)).stride
    return missing_parts(growth.spans, growth.areas(), growth.views, stride)


def workers_of(settings: LabelSettings) -> int:
    """Worker processes: what was asked for, else one per core."""
    return cores() if settings.workers is None else settings.workers


def on_gpu(teacher: Ensemble) -> bool:
    """Whether a GPU answers: then one process asks it, and the others draw views for it."""
    return any(said.get("device") == "cuda" for said in teacher.describe())


class _Labelling:
    """One labelling under way."""

    def __init__(
        self, source: Source, teacher: Ensemble, identity: Identity, settings: LabelSettings, out: Path
    ) -> None:
        self.source, self.teacher, self.identity, self.settings, self.out = source, teacher, identity, settings, out
        self.growth: Growth = plan_growth(source, identity, settings.views, out)
        self.stride = TopKLog8(identity.k, len(identity.classes)).stride
        self.plans = _plans(self.growth, identity)
        self._refuse_away()
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
            sizes=teacher.sizes,
            batch=settings.batch,
            digest=identity.digest,
            work=out / WORK,
            partners=self.growth.info.rows,
            unreadable=frozenset(np.flatnonzero(self.growth.known & (self.growth.contents == 0)).tolist()),
            hard_labels=labels_of_rows(source, self.growth, out) if identity.has_truth else None,
            opened=[teacher],
        )

    def run(self) -> None:
        """Do what is missing."""
        before = self.growth.before
        if before is not None:
            self._mend_probes(before)
            difference = check_renderer(before)
            if difference is not None:
                note(difference)
        if self.growth.finished:
            if not index_is_whole(self.out, self.growth.hashes):
                write_index(self.out, self.growth.hashes)
            self._tidy(self.growth.parts)
            rows, views = len(self.growth.order), self.growth.views
            note(f"{self.out}: nothing to do, {rows:,} samples x {views} views are there")
            return
        self._finish([*self.growth.parts, *self._label()])

    def _refuse_away(self) -> None:
        for plan in self.plans:
            away = int((self.growth.order[plan.area.first_row : plan.area.stop_row] < 0).sum())
            if away:
                raise LabellingError(
                    f"{self.out}: {away:,} of the samples that need labels are not in {self.source.uri}; "
                    "give the whole source"
                )
        if self.plans and self.identity.policy.mixes:
            self._refuse_away_partners()

    def _refuse_away_partners(self) -> None:
        """Any of them may be needed: told now, and not an hour later."""
        away = int((self.growth.order[: self.growth.info.rows] < 0).sum())
        if away:
            raise LabellingError(
                f"{self.out}: {away:,} of the images that views are mixed with are not in {self.source.uri}; "
                "give the whole source"
            )

    def _mend_probes(self, before: Reinforcement) -> None:
        """Write the probe views again where they are damaged and this machine draws the very same."""
        try:
            before.probes()
        except DamageError as damage:
            fresh = probes_bytes(probe_views(self.identity.policy, self.identity.seed))
            if hashlib.sha256(fresh).hexdigest() != before.card.probes.sha256:
                raise LabellingError(
                    f"{damage.file}: is damaged, and this machine does not draw these views again; label anew into "
                    "another --out"
                ) from damage
            write_atomic(damage.file, fresh)

    def _label(self) -> list[PartEntry]:
        """Label all that is missing, assembling each part when its last block is done."""
        plans = {plan.name: plan for plan in self.plans}
        blocks = {name: blocks_of(plan, self.settings.views_per_block) for name, plan in plans.items()}
        every = [block for cut in blocks.values() for block in cut]
        done = [block for block in every if self._take_over(block)]
        finished = set(done)
        left = [block for block in every if block not in finished]
        views = sum(block.area.size for block in left)
        total = views + sum(block.area.size for block in done)
        check_disk(self.out, (self.stride + self.identity.has_truth) * (views + total), len(self.growth.order))
        sanity(self.source, self.teacher, self.identity)
        teachers = list(self.identity.teachers)
        write_json(self.job.work / STARTED, {"settings": self.identity.digest, "teachers": teachers})
        if self.growth.memory is not None:
            remove_leftovers(self.out, self.growth.parts)  # parts of rows that are not remembered
            self.growth.memory.write(self.job.work / MEMORY)
        waiting = {name: sum(block not in finished for block in cut) for name, cut in blocks.items()}
        parts = [self._assemble(plans[name], cut) for name, cut in blocks.items() if not waiting[name]]
        with progress("labelling", views, "views") as bar:
            workers = workers_of(self.settings)
            run = label_ahead if workers and on_gpu(self.teacher) else run_blocks
            for block, path in run(left, self.job, workers):
                self._check(block, path)
                bar.advance(block.area.size)
                waiting[block.part] -= 1
                if not waiting[block.part]:
                    parts.append(self._assemble(plans[block.part], blocks[block.part]))
        return parts

    def _take_over(self, block: Block) -> bool:
        """Whether a block of an earlier start can be used. Undecodable images are tried again: they may be repaired."""
        path = block_path(block, self.job.work)
        found = read_block(path, block, self.job)
        if found is None:
            return False
        if (found.contents_seen == 0).any() or len(self._changed(block, found)):
            path.unlink()
            return False
        return True

    def _changed(self, block: Block, done: BlockLabels) -> NDArray[np.int64]:
        """Rows whose image is not the one that other views show; where there are none, learns what is new.

        Of a row that was not decodable when other views were labelled, the block's own records are dropped later.
        """
        rows, contents = done.rows_seen(block), done.contents_seen
        known, expected = self.growth.known[rows], self.growth.contents[rows]
        own = np.arange(len(rows)) < block.area.rows
        changed: NDArray[np.int64] = rows[known & (expected != contents) & ~(own & (expected == 0))]
        if not len(changed):
            self.growth.contents[rows] = np.where(known, expected, contents)
            self.growth.known[rows] = True
        return changed

    def _check(self, block: Block, path: Path) -> None:
        done = read_block(path, block, self.job)
        if done is None:
            raise LabellingError(f"{path}: cannot be read back; run the same command again")
        changed = self._changed(block, done)
        if len(changed):
            path.unlink()  # made of the changed image, and so of no use when it is restored
            raise SourceError(
                f"{self.source.ids[int(self.growth.order[changed[0]])]}: the image has changed since other views of it "
                "were labelled; restore it, or label anew into another --out"
            )
        self._count_bad(done.rows_seen(block)[done.contents_seen == 0])

    def _count_bad(self, rows: NDArray[np.int64]) -> None:
        fresh = {self.source.ids[int(self.growth.order[row])] for row in rows} - self.skipped
        for sample_id in sorted(fresh):
            warn(f"{sample_id}: image cannot be decoded, left out")
        self.skipped |= fresh
        bad, total = self.skipped - self.growth.skipped, len(self.growth.order)
        if len(bad) > self.settings.max_bad * total:
            raise LabellingError(
                f"{len(bad)} of {total:,} images cannot be decoded, more than --max-bad allows "
                f"({self.settings.max_bad:.2%}; e.g. {min(bad)}); repair them, raise --max-bad, or remove them"
            )

    def _assemble(self, plan: PartPlan, blocks: Sequence[Block]) -> PartEntry:
        area = plan.area
        labels_VNS = np.empty((area.views, area.rows, self.stride), np.uint8)
        truth_VN = np.zeros((area.views, area.rows), np.uint8) if self.identity.has_truth else None
        for block in blocks:
            done = read_block(block_path(block, self.job.work), block, self.job)
            if done is None:
                raise LabellingError(f"{self.out}: a finished block was damaged; run the same command again")
            rows = slice(block.area.first_row - area.first_row, block.area.stop_row - area.first_row)
            views = slice(block.area.first_view - area.first_view, block.area.stop_view - area.first_view)
            labels_VNS[views, rows] = done.labels_VNS
            if truth_VN is not None and done.truth_VN is not None:
                truth_VN[views, rows] = done.truth_VN
            if self.growth.memory is not None:
                self.growth.memory.learn(done.partners_P, self.growth.contents)
        if self.growth.memory is not None:
            self.growth.memory.write(self.job.work / MEMORY)
        contents_N = self.growth.contents[area.first_row : area.stop_row]
        for planes in (labels_VNS, truth_VN):
            if planes is not None:
                planes[:, contents_N == 0] = 0  # an image is labelled in all its views or in none
        entry = write_part(
            self.out,
            row_block=plan.row_block,
            first_row=area.first_row,
            first_view=area.first_view,
            labels_VNS=labels_VNS,
            columns=self._columns(area, contents_N) if area.first_view == 0 else None,
            settings_digest=self.identity.digest,
            truth_VN=truth_VN,
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
        versions = library_versions()
        ordered = tuple(sorted(parts, key=lambda part: (part.row_block, part.views)))
        card = Card(
            **self.identity.values(),
            views=self.growth.views,
            probes=self._probes(versions),
            source=self.growth.info,
            versions=versions,
            skipped=tuple(sorted(self.skipped)),
            parts=ordered,
        )
        write_index(self.out, self.growth.hashes)
        write_card(self.out, card)
        self._tidy(ordered)
        size = sum(file.stat().st_size for file in self.out.iterdir() if file.is_file())
        a_view = self.stride + self.identity.has_truth
        labels = a_view * card.views * card.source.count
        note(f"{self.out}: {card.source.count:,} samples x {card.views} views, {told_bytes(labels, a_view, size)}")

    def _tidy(self, parts: Sequence[PartEntry]) -> None:
        """Remove what the card does not know: half-written files, parts of another cut, finished work."""
        remove_leftovers(self.out, parts)
        for path in (self.out / WORK).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name in (STARTED, MEMORY):
                path.unlink()

    def _probes(self, versions: Mapping[str, str]) -> Probes:
        """Those of the first labelling stay: they tell what its views were drawn with."""
        if self.growth.before is not None:
            return self.growth.before.card.probes
        sha256 = write_probes(self.out, probe_views(self.identity.policy, self.identity.seed))
        drawing = {name: versions[name] for name in ("buttress", "numpy", "opencv-python-headless")}
        return Probes(sha256=sha256, versions=drawing)


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

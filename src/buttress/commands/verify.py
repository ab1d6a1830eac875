"""`buttress verify`: does a reinforcement hold, and does it belong to these images and this teacher?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buttress.loading.coverage import Coverage
    from buttress.sources import Source
    from buttress.store.reader import Reinforcement
    from buttress.teachers import EnsembleSpec, Teacher

Check = tuple[bool, str]


def verify(
    reinforcement: Path,
    *,
    source: str | None = None,
    teacher: str | list[str] | None = None,
    tolerance: float = 0.02,
    sample: int = 256,
) -> int:
    """Check a reinforcement: every byte, the renderer, the images, and the teacher's answers on a sample.

    Exits 0 when all of it holds, 1 when something does not, 2 on misuse.

    Args:
        reinforcement: the folder.
        source: the images it was made from, e.g. folder:photos/train; without it they are not checked.
        teacher: where the teacher is now; the default is where it was. With it away the rest is checked. Of several
            teachers each is named, in the order in which they were given to reinforce.
        tolerance: total-variation distance, 0..1, that 99 % of the stored and fresh answers must stay within.
        sample: views to ask the teacher about again; 0 = none.
    """
    from buttress.errors import SettingsError

    if not 0 <= tolerance <= 1 or sample < 0:
        raise SettingsError(f"--tolerance {tolerance} --sample {sample}: a tolerance is 0..1, a sample 0 or more")
    holds = True
    teachers = [teacher] if isinstance(teacher, str) else teacher
    for held, line in _checks(reinforcement, source, teachers, tolerance, sample):
        print(("ok      " if held else "WRONG   ") + line)
        holds &= held
    return 0 if holds else 1


def _checks(
    path: Path, source: str | None, teachers: list[str] | None, tolerance: float, sample: int
) -> Iterator[Check]:
    from buttress.store.reader import open_reinforcement
    from buttress.store.verify import check_integrity

    integrity = check_integrity(path)
    yield from ((False, str(problem)) for problem in integrity.problems)
    if not integrity.whole:
        return
    yield True, f"bytes: {integrity.rows:,} samples x {integrity.views} views, {integrity.bytes:,} bytes, all checksums"
    stored = open_reinforcement(path)
    yield _renderer(stored)
    if source is None:
        print("        images: not checked (name them by --source)")
        return
    yield from _against_source(stored, source, teachers, tolerance, sample)


def _renderer(stored: Reinforcement) -> Check:
    from buttress.errors import StoreError
    from buttress.store.rendering import check_renderer

    try:
        return True, check_renderer(stored) or "renderer: this machine draws the probe views bit for bit"
    except StoreError as failure:
        return False, str(failure)


def _against_source(
    stored: Reinforcement, uri: str, teachers: list[str] | None, tolerance: float, sample: int
) -> Iterator[Check]:
    from buttress.errors import StoreError
    from buttress.loading.coverage import look_up
    from buttress.sources import open_source

    source = open_source(uri)
    try:
        coverage = look_up(source, stored)
    except StoreError as failure:
        yield False, str(failure)
        return
    yield _ids(coverage)
    if (coverage.rows < 0).all():
        return
    yield _contents(source, stored, coverage)
    if sample:
        yield from _rerun(source, stored, coverage, teachers, tolerance, sample)


def _ids(coverage: Coverage) -> Check:
    """Samples that nobody has labelled yet are no fault of the reinforcement's; a folder of nothing else is another."""
    from buttress.loading.coverage import OLD_NAMES

    line = f"ids: {coverage.line()}"
    if (coverage.rows < 0).any():
        old_names = "" if coverage.renamed is None else f"{OLD_NAMES}, or "
        line += f"; {old_names}run the same buttress reinforce command again to label them"
    return bool((coverage.rows >= 0).any()), line


def _contents(source: Source, stored: Reinforcement, coverage: Coverage) -> Check:
    from buttress.sources import UndecodableImage, content_hash
    from buttress.terminal import progress

    changed: list[str] = []
    compared = 0
    known = (coverage.rows >= 0).nonzero()[0].tolist()
    with progress("images", len(known), "images") as bar:
        for index in known:
            bar.advance()
            if coverage.undecodable[index]:
                continue
            compared += 1
            try:
                same = content_hash(source[index].data) == int(stored.content_hashes[coverage.rows[index]])
            except UndecodableImage:
                same = False
            if not same:
                changed.append(source.ids[index])
    if changed:
        return False, f"images: {len(changed):,} have changed since the teacher saw them (e.g. {changed[0]})"
    return True, f"images: {compared:,} are the ones the teacher saw"


def _rerun(
    source: Source, stored: Reinforcement, coverage: Coverage, teachers: list[str] | None, tolerance: float, sample: int
) -> Iterator[Check]:
    from buttress.labelling.rerun import require_same_teachers, rerun, teacher_of
    from buttress.teachers import Ensemble

    spec = teacher_of(stored, teachers)
    members, away = _opened(spec, must=teachers is not None)
    if away:
        what = "teacher: not" if len(spec.members) == 1 else f"teachers: {len(away)} of {len(spec.members)} away, none"
        print(f"        {what} asked again ({'; '.join(away)}; say where it is now by --teacher)")
        return
    require_same_teachers(stored, members)
    result = rerun(source, stored, coverage.rows, Ensemble(spec, members), sample)
    truth = " (or of the stored truth)" if stored.card.has_truth else ""
    yield (
        result.p99 <= tolerance,
        f"teacher: {result.views} views asked again, total-variation distance{truth} {result.mean:.4f} on average "
        f"(99 % within {result.p99:.4f}, largest {result.largest:.4f} at {result.where}; tolerance {tolerance})",
    )


def _opened(spec: EnsembleSpec, *, must: bool) -> tuple[list[Teacher], list[str]]:
    """The teachers that can be opened, and what was said of those that cannot; where they `must`, that is an error."""
    from buttress.errors import ModelError

    members: list[Teacher] = []
    away: list[str] = []
    for member in spec.members:
        try:
            members.append(member.open())
        except ModelError as failure:
            if must:
                raise
            away.append(str(failure))
    return members, away

"""Reading every byte of a reinforcement and naming everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.store.card import TRUTH, PartEntry
from buttress.store.card_file import CARD_NAME
from buttress.store.codec import TopKLog8
from buttress.store.damage import DamageError
from buttress.store.part import PART_NAME, Part, damaged
from buttress.store.probes import PROBES_NAME
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.store.rows import INDEX_NAME, index_bytes, index_is_whole
from buttress.views.draw import Drawer


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong: which file, where in it, what."""

    file: Path
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Integrity:
    """What reading everything found.

    Args:
        problems: all of them; empty = whole.
        rows, views, bytes: how much the folder holds (0 where the card cannot be read).
    """

    problems: tuple[Problem, ...]
    rows: int = 0
    views: int = 0
    bytes: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check_integrity(path: str | Path) -> Integrity:
    """Read every file of a reinforcement; never raises for what is wrong inside it.

    Raises:
        StoreError: there is no reinforcement, or it is of a newer format.
    """
    folder = Path(path)
    try:
        reinforcement = open_reinforcement(folder)
    except DamageError as damage:
        return Integrity((_problem(damage),))
    problems = tuple(_problems(reinforcement))
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return Integrity(problems, reinforcement.rows, reinforcement.views, size)


def _problems(reinforcement: Reinforcement) -> Iterator[Problem]:
    yield from _card_problems(reinforcement)
    broken = False
    for entry in reinforcement.card.parts:
        for problem in _part_problems(reinforcement, entry):
            broken = True
            yield problem
    if not broken:
        yield from _row_problems(reinforcement)
    yield from _probe_problems(reinforcement)
    yield from _strays(reinforcement)


def _card_problems(reinforcement: Reinforcement) -> Iterator[Problem]:
    try:
        reinforcement.codec  # noqa: B018 - the look is the check
        reinforcement.card.has_truth  # noqa: B018
    except StoreError as failure:
        yield Problem(reinforcement.path / CARD_NAME, "fields", str(failure))


def _part_problems(reinforcement: Reinforcement, entry: PartEntry) -> Iterator[Problem]:
    """Header and checksums of a part, and that its records are such as a labelling writes."""
    try:
        part = reinforcement.part(entry)
        found = list(part.check())
        yield from map(_problem, found)
        if found:
            return
        first = reinforcement.part(_first_of_block(reinforcement, entry))
        bad_N = np.broadcast_to(first.column("content_hashes") == 0, (entry.rows[1] - entry.rows[0],))
        hashes_N = first.column("id_hashes")
        for view in range(*entry.views):
            plane_NS = part.plane(view, reinforcement.codec.stride)
            absent_N = reinforcement.codec.absent(plane_NS) & ~bad_N
            lost_N = _without_partner(reinforcement, hashes_N, view, absent_N) if absent_N.any() else absent_N
            wrong = _wrong_record(reinforcement.codec, plane_NS, bad_N, lost_N)
            if wrong is not None:
                row, what = entry.rows[0] + wrong[0], wrong[1]
                yield _problem(damaged(part.path, part.name, f"plane of view {view}, row {row}", f"the row {what}"))
                return
        if reinforcement.card.has_truth:
            yield from _truth_problems(part, entry, reinforcement.codec, first.column("hard_labels") < 0)
    except DamageError as damage:
        yield _problem(damage)
    except StoreError as failure:
        yield Problem(reinforcement.path / f"{entry.name}.safetensors", "labels", str(failure))


def _truth_problems(
    part: Part, entry: PartEntry, codec: TopKLog8, unlabelled_N: NDArray[np.bool_]
) -> Iterator[Problem]:
    """The first truth that stands where there is none: in rows without a hard label, beside records that are absent."""
    for view in range(*entry.views):
        wrong_N = (part.numbers(TRUTH, view) != 0) & (unlabelled_N | codec.absent(part.plane(view, codec.stride)))
        if wrong_N.any():
            place = f"truth of view {view}, row {entry.rows[0] + int(np.argmax(wrong_N))}"
            yield _problem(damaged(part.path, part.name, place, "the row has a truth, but no record or no hard label"))
            return


def _without_partner(
    reinforcement: Reinforcement, hashes_N: NDArray[np.uint64], view: int, asked_N: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which of the rows asked about are mixed, in this view, with an image that could not be decoded."""
    card = reinforcement.card
    drawer, lost_N = Drawer(card.policy, card.seed, card.source.rows), np.zeros_like(asked_N)
    for row in np.flatnonzero(asked_N).tolist():
        mix = drawer.mix(int(hashes_N[row]), view)
        lost_N[row] = mix is not None and reinforcement.content_hashes[mix.partner] == 0
    return lost_N


def _wrong_record(
    codec: TopKLog8, plane_NS: NDArray[np.uint8], bad_N: NDArray[np.bool_], lost_N: NDArray[np.bool_]
) -> tuple[int, str] | None:
    """The first row of a plane that no labelling writes, and what it does: its checksum may fit all the same.

    Args:
        plane_NS: the records of one view.
        bad_N: rows whose image could not be decoded, and which are absent for it.
        lost_N: rows that are absent in this view, for their partner's could not.
    """
    absent_N = codec.absent(plane_NS) & ~lost_N
    wrong_N = (absent_N != bad_N) | ~(absent_N | lost_N | codec.ids_hold(plane_NS))
    if not wrong_N.any():
        return None
    row = int(np.argmax(wrong_N))
    if absent_N[row] != bad_N[row]:
        return row, "has labels, but no image" if bad_N[row] else "has an image, but no labels"
    return row, f"has class ids that are not {codec.k} distinct ones below {codec.classes}"


def _first_of_block(reinforcement: Reinforcement, entry: PartEntry) -> PartEntry:
    return next(part for part in reinforcement.card.parts if part.row_block == entry.row_block)


def _row_problems(reinforcement: Reinforcement) -> Iterator[Problem]:
    """Duplicate ids, the count of absent rows, and the index."""
    card = reinforcement.card
    try:
        index_bytes(reinforcement.id_hashes)
        if len(reinforcement.absent_rows) != len(card.skipped):
            what = f"{len(card.skipped)} ids are listed, but {len(reinforcement.absent_rows)} rows are absent"
            yield Problem(reinforcement.path / CARD_NAME, "skipped", what)
    except StoreError as failure:
        yield Problem(reinforcement.path, "id hashes", str(failure))
        return
    path = reinforcement.path / INDEX_NAME
    if path.exists() and not index_is_whole(reinforcement.path, reinforcement.id_hashes):
        yield Problem(path, "file", "not the order of the stored ids; delete it, for readers can do without")


def _probe_problems(reinforcement: Reinforcement) -> Iterator[Problem]:
    try:
        reinforcement.probes()
    except DamageError as damage:
        yield _problem(damage)


def _strays(reinforcement: Reinforcement) -> Iterator[Problem]:
    """Files with names like ours that the card does not know."""
    known = {CARD_NAME, INDEX_NAME, PROBES_NAME}
    for part in reinforcement.card.parts:
        known |= {f"{part.name}.safetensors", f"{part.name}.json"}
    for path in sorted(reinforcement.path.iterdir()):
        ours = PART_NAME.fullmatch(path.stem) or path.suffix in (".safetensors", ".tmp")
        if ours and path.name not in known:
            yield Problem(path, "file", "unknown to the card (left by a labelling that was cut off?); delete it")


def _problem(damage: DamageError) -> Problem:
    return Problem(damage.file, damage.place, damage.what)

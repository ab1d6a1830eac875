"""Ask the teacher again about a sample of views, and compare with what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import LabellingError, SettingsError
from buttress.labelling.looks import Views, WaitingViews, views_at_sizes
from buttress.labelling.truth import truth_distances
from buttress.sources import Source, UndecodableImage, id_hash
from buttress.store.partners import Partners
from buttress.store.reader import Reinforcement
from buttress.teachers.ensemble import Ensemble, EnsembleSpec
from buttress.teachers.forward import recorded_forward
from buttress.teachers.teacher import Teacher, TeacherSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Rerun:
    """Total-variation distances, 0..1, between stored and fresh answers, over the stored classes and the rest.

    Args:
        views: how many were compared.
        mean: mean distance.
        p99: 99 % of the views are at most this far.
        largest: the largest distance.
        where: the view that has it.
    """

    views: int
    mean: float
    p99: float
    largest: float
    where: str


def teacher_of(reinforcement: Reinforcement, uris: Sequence[str] | None = None) -> EnsembleSpec:
    """How to open the teachers that made a reinforcement; `uris` say where they are now, in the card's order.

    Raises:
        SettingsError: not as many as there are.
    """
    stored = reinforcement.card.teachers
    if uris is not None and len(uris) != len(stored):
        there = " ".join(f"--teacher {said['uri']}" for said in stored)
        raise SettingsError(
            f"--teacher: {len(uris)} named, but {len(stored)} made {reinforcement.path}; name where each is now, in "
            f"this order: {there}"
        )
    return EnsembleSpec(
        members=tuple(
            _member(dict(said), said["uri"] if uris is None else uris[number], reinforcement.classes)
            for number, said in enumerate(stored)
        ),
        weights=tuple(said["weight"] for said in stored) if len(stored) > 1 else (),
    )


def _member(said: dict[str, Any], uri: str, classes: Sequence[str]) -> TeacherSpec:
    """How to open a teacher by what the card says of it."""
    mapped = said.get("class_map")
    return TeacherSpec(
        uri=uri,
        size=said["size"],
        temperature=said["temperature"],
        classes="teacher" if said.get("classes") == "teacher" else "source",
        source_classes=tuple(classes),
        class_map=None if mapped is None else {name: list(group) for name, group in mapped.items()},
        precision=said["precision"],
        threads=said.get("threads"),
        forward=recorded_forward(said),
    )


def rerun(
    source: Source, reinforcement: Reinforcement, rows: NDArray[np.int64], teacher: Ensemble, sample: int
) -> Rerun:
    """Render and ask again.

    Args:
        source: the images; rows: row of each of its samples, -1 = none.
        reinforcement: what is stored.
        teacher: opened from `teacher_of`. Where truth is stored, it is asked for that too.
        sample: views to compare, spread over samples and views.

    Raises:
        LabellingError: another teacher than the one that made it, or nothing to compare.
    """
    require_same_teachers(reinforcement, teacher.members)
    usable = np.flatnonzero((rows >= 0) & ~np.isin(rows, reinforcement.absent_rows))
    if not len(usable):
        raise LabellingError(f"{source.uri}: none of its samples is in {reinforcement.path}")
    distances: list[float] = []
    places: list[str] = []
    partners = Partners(source, reinforcement, rows)
    for index_B, view_B, views in _batches(source, partners, usable, reinforcement.views, teacher.sizes, sample):
        fresh_BC = teacher.probabilities(views)
        distances_B = _distances(fresh_BC, *reinforcement.targets(rows[index_B], view_B))
        if reinforcement.card.has_truth:
            distances_B = np.maximum(distances_B, truth_distances(fresh_BC, reinforcement, rows[index_B], view_B))
        distances += distances_B.tolist()
        places += [f"view {view} of {source.ids[i]}" for i, view in zip(index_B.tolist(), view_B.tolist(), strict=True)]
    if not distances:
        raise LabellingError(f"{source.uri}: none of the views looked at can be drawn")
    worst = int(np.argmax(distances))
    return Rerun(
        views=len(distances),
        mean=float(np.mean(distances)),
        p99=float(np.quantile(distances, 0.99)),
        largest=distances[worst],
        where=places[worst],
    )


def require_same_teachers(reinforcement: Reinforcement, members: Sequence[Teacher]) -> None:
    """Refuse other teachers than those that made a reinforcement, in the card's order.

    Raises:
        LabellingError: weights, level or source of one differ.
    """
    for was, member in zip(reinforcement.card.teachers, members, strict=True):
        now = member.describe()
        if any(was.get(key) != now.get(key) for key in ("weights_sha256", "level", "source_sha256")):
            raise LabellingError(
                f"{member.spec.uri}: is not the teacher that made {reinforcement.path} (its weights, level or source "
                "differ); name the right one by --teacher"
            )


def _batches(
    source: Source,
    partners: Partners,
    usable: NDArray[np.int64],
    count: int,
    sizes: Sequence[int],
    sample: int,
    batch: int = 32,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Views]]:
    """Samples, their views (of `count`) and pixels; a view whose partner is not here gives way to the next that is."""
    for places in _spread(len(usable) * count, sample, batch):
        kept, numbers, waiting = [], [], WaitingViews(sizes)
        for place in places:
            row, number = divmod(place, count)
            index = int(usable[row])
            try:
                found = source[index]
                picture = found.data, id_hash(found.id)
                view = partners.next_view(picture[1], (number + row) % count)
                if view is None:
                    continue
                there, views = views_at_sizes(partners.renderer, picture, [view], sizes, partners.picture)
            except UndecodableImage:
                continue
            waiting.add(views)
            kept += [index] * len(there)
            numbers += there
        if kept:
            yield np.array(kept), np.array(numbers), waiting.batch(0, batch)


def _spread(total: int, sample: int, batch: int) -> Iterator[list[int]]:
    """`sample` distinct numbers (at most `total`) spread over 0..total-1, in batches."""
    count = min(sample, total)
    for first in range(0, count, batch):
        yield [number * total // count for number in range(first, min(first + batch, count))]


def _distances(
    fresh_BC: NDArray[np.float32],
    values_BK: NDArray[np.float32],
    ids_BK: NDArray[np.int32],
    rest_B: NDArray[np.float32],
) -> NDArray[np.float64]:
    there_BK: NDArray[np.float64] = np.take_along_axis(fresh_BC, ids_BK.astype(np.int64), axis=1).astype(np.float64)
    other_B = np.maximum(1 - there_BK.sum(axis=1), 0)
    distances_B: NDArray[np.float64] = 0.5 * (np.abs(there_BK - values_BK).sum(axis=1) + np.abs(other_B - rest_B))
    return distances_B

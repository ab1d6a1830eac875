"""Which way a network answers fastest on a CPU: measured before a long labelling, printed, and kept on the card.

Memory formats, bf16 and torch.compile are each worth a factor for some networks and cost one for others, and no rule
of thumb says for which.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from buttress.errors import ModelError
from buttress.models.uri import parse_model_uri
from buttress.teachers.ensemble import EnsembleSpec
from buttress.teachers.teacher import COMPILED, COMPILED_BATCH, Forward, Precision, TeacherSpec
from buttress.terminal import note

if TYPE_CHECKING:
    from buttress.models.load import LoadedModel

WORTH_MEASURING = 4_000  # views: of fewer than that, measuring takes a good part of the time
WORTH_COMPILING = 600.0  # seconds of work in a process: a compiler takes about a minute, in each of them anew
REPEATS = 2  # after one that is not counted; the fastest counts
FORMATS: tuple[Forward, Forward] = ("channels_last", "contiguous")
Way = tuple[Precision, Forward]


def settled(
    spec: EnsembleSpec, views: int, workers: int, recorded: Sequence[Mapping[str, Any]] | None = None
) -> EnsembleSpec:
    """The same teachers with what they left to us, precision and forward, chosen.

    Args:
        spec: how they were asked for.
        views: how many are to be labelled.
        workers: processes that share them.
        recorded: what a labelling that is gone on with says of its teachers; none where there is nothing yet. It is not
            measured again; where it does not say (or not of as many), nothing is chosen.
    """
    if recorded is None:
        return replace(spec, members=tuple(_measured(member, views, max(1, workers)) for member in spec.members))
    if len(recorded) != len(spec.members):
        return spec
    members = (_as_recorded(member, said) for member, said in zip(spec.members, recorded, strict=True))
    return replace(spec, members=tuple(members))


def _as_recorded(member: TeacherSpec, said: Mapping[str, Any]) -> TeacherSpec:
    if member.precision == "auto" and said.get("precision") in ("fp32", "bf16"):
        member = replace(member, precision=said["precision"])
    return replace(member, forward=recorded_forward(said)) if member.forward == "auto" else member


def recorded_forward(said: Mapping[str, Any]) -> Forward:
    """As a card says of a teacher; a function, of which it says nothing, stays as it is."""
    if "channels_last" not in said:
        return "auto"
    form = FORMATS[not said["channels_last"]]
    return COMPILED[form] if said.get("compiled") else form


def _measured(member: TeacherSpec, views: int, workers: int) -> TeacherSpec:
    if member.forward != "auto" or views < WORTH_MEASURING or parse_model_uri(member.uri).scheme == "python":
        return member
    import torch

    from buttress.models.processor import cpu_has_bf16

    if torch.cuda.is_available():
        return member
    precisions: list[Precision] = [member.precision]
    if member.precision == "auto":
        precisions = ["fp32", "bf16"] if cpu_has_bf16() else ["fp32"]
    loaded = member.load()
    seconds = {way: _seconds(member, loaded, way) for way in product(precisions, FORMATS)}
    best = min(seconds, key=lambda way: seconds[way])
    if seconds[best] * views / workers > WORTH_COMPILING:
        compiled = best[0], COMPILED[best[1]]
        try:
            seconds[compiled] = _seconds(member, loaded, compiled)
        except ModelError as failure:
            note(f"not compiled: {failure}")
        best = min(seconds, key=lambda way: seconds[way])
    told = ", ".join(
        f"{_name(way)} {1e3 * each:.1f}" for way, each in sorted(seconds.items(), key=lambda pair: pair[1])
    )
    uri = parse_model_uri(member.uri).public
    note(f"{uri}: {_name(best)} is fastest (ms a view: {told}); --precision and --forward choose otherwise")
    return replace(member, precision=best[0], forward=best[1])


def _name(way: Way) -> str:
    return f"{way[0]} {way[1]}"


def _seconds(member: TeacherSpec, loaded: LoadedModel, way: Way) -> float:
    """Processor time a view."""
    from buttress.teachers.network import NetworkTeacher

    teacher = NetworkTeacher(replace(member, precision=way[0], forward=way[1]), loaded)
    generator = np.random.default_rng(0)
    views_BHWC = generator.integers(0, 256, (COMPILED_BATCH, teacher.size, teacher.size, 3), np.uint8)
    teacher.probabilities(views_BHWC)
    spent = []
    for _ in range(REPEATS):
        started = time.process_time()
        teacher.probabilities(views_BHWC)
        spent.append(time.process_time() - started)
    return min(spent) / COMPILED_BATCH

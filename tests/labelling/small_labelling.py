"""Small labellings of the 24 photos: in this process, by one teacher or several, in blocks of few views."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
import pytest
from numpy.typing import NDArray

from buttress.labelling import block as block_module
from buttress.labelling import label
from buttress.labelling.label import label_source
from buttress.labelling.plan import Block
from buttress.labelling.settings import LabelSettings
from buttress.sources import Source
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.teachers import EnsembleSpec, TeacherSpec
from buttress.views.policy import Policy

SMALL: dict[str, Any] = {"views": 4, "k": 2, "batch": 5, "views_per_block": 12, "workers": 0}


@overload
def spec_of(teacher: str, source: Source, weights: tuple[float, ...] = ...) -> TeacherSpec: ...
@overload
def spec_of(teacher: list[str], source: Source, weights: tuple[float, ...] = ...) -> EnsembleSpec: ...


def spec_of(teacher: str | list[str], source: Source, weights: tuple[float, ...] = ()) -> TeacherSpec | EnsembleSpec:
    """The spec of one teacher by its URI, or of several by theirs."""
    if isinstance(teacher, str):
        return TeacherSpec(uri=teacher, source_classes=source.classes)
    members = tuple(TeacherSpec(uri=uri, source_classes=source.classes) for uri in teacher)
    return EnsembleSpec(members=members, weights=weights)


def labelled(
    source: Source,
    teacher: str | list[str],
    out: Path,
    *,
    policy: Policy,
    weights: tuple[float, ...] = (),
    **settings: Any,
) -> Reinforcement:
    """The store in `out` after labelling, with `SMALL` settings where nothing else is said."""
    label_source(source, spec_of(teacher, source, weights), policy, LabelSettings(**{**SMALL, **settings}), out)
    return open_reinforcement(out)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def parts_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in bytes_of(folder).items() if name.startswith("part-")}


def records_of(store: Reinforcement, rows: NDArray[np.integer] | None = None) -> NDArray[np.uint8]:
    """The records of rows, all of them by default, in every view: `[V, N, stride]`."""
    rows = np.arange(store.rows) if rows is None else rows
    return np.stack([store.records(rows, view) for view in range(store.views)])


def damage(path: Path, place: int = -1) -> bytes:
    """Turn one bit of a file; gives what it holds now."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    return bytes(data)


@contextmanager
def cut_off(step: str, moment: str = "before", of: Any = label) -> Iterator[None]:
    """Within it comes Ctrl-C, before or after the first call of `step`; the block must come so far."""
    really = getattr(of, step)

    def interrupted(*arguments: Any, **named: Any) -> None:
        if moment == "after":
            really(*arguments, **named)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


@contextmanager
def blocks_labelled(limit: int | None = None) -> Iterator[list[Block]]:
    """The blocks that are labelled within it; Ctrl-C comes where there would be more than `limit`."""
    really, blocks = block_module._label, list[Block]()

    def noted(block: Block, job: Any, drawn: Any) -> Any:
        if len(blocks) == limit:
            raise KeyboardInterrupt
        blocks.append(block)
        return really(block, job, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_module, "_label", noted)
        yield blocks

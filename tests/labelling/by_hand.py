"""What a store of views should hold, drawn and asked by hand; a sample goes by its id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from buttress.sources import Source, id_hash
from buttress.teachers import EnsembleSpec, TeacherSpec
from buttress.views.draw import Mix
from buttress.views.policy import Policy
from buttress.views.render import Picture, Pictures, Renderer


def pictures_of(source: Source, names: Sequence[str]) -> Pictures:
    """Image and id hash of row r, which is the sample `names[r]`."""

    def picture(row: int) -> Picture:
        sample = source[source.ids.index(names[row])]
        return sample.data, id_hash(sample.id)

    return picture


def mix_of(policy: Policy, rows: int, name: str, view: int) -> Mix | None:
    """What a view is mixed with in a store whose partners are its first `rows` rows."""
    return Renderer(policy, 0, rows).mix(id_hash(name), view)


def view_of(
    policy: Policy, source: Source, name: str, view: int, size: int = 24, names: Sequence[str] | None = None
) -> NDArray[np.uint8]:
    """Pixels `[1, size, size, 3]` of a view; `names` are those of the rows it may be mixed with, by default all."""
    names = source.ids if names is None else names
    data = source[source.ids.index(name)].data
    return Renderer(policy, 0, len(names)).views(data, id_hash(name), [view], size, pictures_of(source, names))


def said_of(
    spec: TeacherSpec | EnsembleSpec,
    policy: Policy,
    source: Source,
    name: str,
    view: int,
    names: Sequence[str] | None = None,
) -> NDArray[np.float64]:
    """What a teacher says of a view, or several, each at its size: the weighted mean `[C]`."""
    members = spec.members if isinstance(spec, EnsembleSpec) else (spec,)
    weights = spec.weights if isinstance(spec, EnsembleSpec) and spec.weights else (1.0,) * len(members)
    opened = [member.open() for member in members]
    answers = [one.probabilities(view_of(policy, source, name, view, one.size, names))[0] for one in opened]
    mean: NDArray[np.float64] = np.average(np.array(answers, np.float64), axis=0, weights=weights)
    return mean

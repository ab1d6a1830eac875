"""An elastic run at each of its levels: one pass over the images, and what it costs without a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buttress.metrics.clean import main_figures
from buttress.metrics.cost.measure import Counts, count_cost
from buttress.metrics.intervals import Figure
from buttress.metrics.score import Scoring, score
from buttress.models.load import LoadedModel
from buttress.runs.run import Run
from buttress.sources import Source
from buttress.terminal import progress
from buttress.weights.levels import Level


@dataclass(frozen=True, kw_only=True, slots=True)
class AtLevel:
    """What an elastic run is worth at one level.

    Args:
        level: where it stands.
        figures: top1, top5, nll (nat) and ece, each with value, count, low and high.
        counts: parameters, bytes and multiply-accumulates of the plain network of this level.
    """

    level: Level
    figures: Mapping[str, Figure]
    counts: Counts

    def details(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {"level": str(self.level), "figures": dict(self.figures), **self.counts._asdict()}


def score_levels(
    run: Run, source: Source, how: Scoring, *, default: LoadedModel, figures: Mapping[str, Figure]
) -> list[AtLevel]:
    """Score an elastic run at each of its levels, the default first.

    Args:
        run: elastic and finished; of another one there is nothing to tell.
        source: labelled images.
        how: they are scored.
        default: the run's model at its default level.
        figures: what was found of that on the same images, top1, top5, nll and ece among it.

    Raises:
        SourceError, ModelError: as `score` and `count_cost`.
    """
    first, *others = run.levels() or (None,)
    if first is None:
        return []
    known = {key: figures[key] for key in ("top1", "top5", "nll", "ece")}
    found = [AtLevel(level=first, figures=known, counts=count_cost(default))]
    with progress("levels", len(others), "levels") as bar:
        for level in others:
            bar.update(str(level))
            loaded = run.load_model(level, measured=True)
            told = main_figures(score(loaded, source, how))
            found.append(AtLevel(level=level, figures=told, counts=count_cost(loaded)))
            bar.advance()
    return found

"""A run with only some of its classes: its classifier's columns, cut out for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from buttress.errors import ModelError
from buttress.runs.run import Run


def fold_run(
    run: Run, columns: Sequence[int], classes: Sequence[str], out: Path, *, versions: Mapping[str, str]
) -> Run:
    """Write the run that has only some of a run's outputs; everything else about it stays.

    Its logits are the old ones at `columns` (to the last bit of what the order of a matrix product leaves open), so its
    probabilities are those of a softmax over the cut.

    Args:
        run: a finished run of a plain network.
        columns: distinct outputs to keep, in the order wanted.
        classes: their names from now on.
        out: the folder to make.
        versions: of the libraries.

    Raises:
        ModelError: an output that is not there, a classifier that has no columns, or compression methods.
        TrainingError: `out` is a run already.
    """
    if run.methods:
        raise ModelError(f"{run.path}: is compressed, and its classifier with it; fold first, then compress")
    from buttress.models.fold import with_outputs

    loaded = run.load_model()
    if beyond := [column for column in columns if not 0 <= column < loaded.num_classes]:
        raise ModelError(f"{run.path}: has {loaded.num_classes:,} outputs, no number {beyond[0]}")
    folded = with_outputs(loaded, columns, classes)
    made = {
        "run": run.path.name,
        "weights_sha256": loaded.weights_sha256,
        "outputs": loaded.num_classes,
        "columns": list(columns),
    }
    result = Run.of(
        out,
        model=folded,
        classes=classes,
        settings={**run.settings, "fold": made},
        versions=versions,
        data=run.data,
        reinforcement=run.reinforcement,
    ).create()
    result.save_weights(folded.module.state_dict())
    return result

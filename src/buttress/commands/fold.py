"""`buttress fold`: of a model with a teacher's whole head, keep the classes that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buttress.teachers.classes import ClassMap


def fold(
    run: str,
    *,
    data: str,
    out: Path,
    class_map: Path | None = None,
) -> None:
    """Write a run anew with only the outputs of some images' classes.

    A student of --classes teacher has all of the teacher's classes, and its unused ones cost memory and time.

    Args:
        run: a run folder, or run:DIR.
        data: images in the classes to keep, e.g. folder:photos/val; matched by name or WordNet id.
        out: the run folder to make.
        class_map: YAML file, class of the images -> class of the run, where names do not say it.
    """
    from buttress.errors import SourceError, TrainingError
    from buttress.files import require_own_folder
    from buttress.runs.fold import fold_run
    from buttress.runs.resolve import resolve_run
    from buttress.runs.run import CARD
    from buttress.sources import open_source
    from buttress.teachers.classes import choose_classes
    from buttress.terminal import note
    from buttress.versions import library_versions

    if (out / CARD).exists():
        raise TrainingError(f"{out}: holds a run already; name another --out")
    require_own_folder(out, lambda _: False, "a new run")
    opened, source = resolve_run(run), open_source(data)
    if source.classes is None:
        raise SourceError(f"{data}: has no classes to keep; put images in class sub-folders")
    wanted = tuple(source.classes)
    chosen = choose_classes(
        opened.classes,
        mode="source",
        source_classes=wanted,
        class_map=class_map,
        teacher=run,
    )
    columns = _columns(run, data, chosen, opened.classes)
    made = fold_run(opened, columns, wanted, out, versions=library_versions())
    note(f"{made.path}: {len(columns):,} classes; score it by buttress evaluate {made.path} --data {data}")


def _columns(run: str, data: str, chosen: ClassMap, own: tuple[str, ...] | None) -> Sequence[int]:
    """The run's output for each class wanted.

    Raises: ModelError, where there is nothing to do, nothing is known, or outputs would have to be summed.
    """
    from buttress.errors import ModelError

    if chosen.groups is None:
        why = f"has just the classes of {data} already" if own else "does not name its classes; say them by --class-map"
        raise ModelError(f"{run}: {why}")
    if found := chosen.first_sum(own):
        raise ModelError(
            f"{run}: {found[0]!r} would be the sum of {found[1]}, and probabilities add up where logits do not; map it "
            "to one class to fold, or leave the run whole (evaluate and reinforce sum them)"
        )
    return [group[0] for group in chosen.groups]

"""`buttress verify`: does a reinforcement hold, and does it belong to these images and this teacher?"""

from __future__ import annotations

from pathlib import Path


def verify(
    reinforcement: Path,
    *,
    source: str | None = None,
    teacher: str | None = None,
    tolerance: float = 0.02,
    sample: int = 256,
) -> int:
    """Check a reinforcement: every byte, the images' ids, and the teacher's answers on a sample.

    Exits 0 when all of it holds, 1 when something does not, 2 on misuse.

    Args:
        reinforcement: the folder.
        source: the images it was made from, e.g. folder:photos/train; without it only the bytes are checked.
        teacher: where the teacher is now; the default is where it was.
        tolerance: largest mean total-variation distance, 0..1, between stored and re-run answers of a view.
        sample: views to ask the teacher about again; 0 = none.
    """
    from buttress.labelling.check import check_reinforcement

    lines, holds = check_reinforcement(reinforcement, source, teacher, tolerance, sample)
    for line in lines:
        print(line)
    return 0 if holds else 1

"""Settings of labelling. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from buttress.errors import SettingsError

MAX_VIEWS_PER_BLOCK = 4_096


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How a source is labelled.

    Args:
        views: views stored per sample; about a third of the epochs to be trained is enough (arXiv 2303.08983).
        k: classes stored per view; the others share the rest evenly.
        seed: seed of the views.
        batch: views per forward pass of the teacher.
        workers: labelling processes; none = as many as there are cores; 0 = in this process.
        max_bad: largest share, 0..1, of images that may fail to decode.
        views_per_block: views in a unit of work; what is lost at most, per process, when it is killed.
        truth: also store the probability of each sample's own class, one byte per view.
    """

    views: int = 16
    k: int = 10
    seed: int = 0
    batch: int = 32
    workers: int | None = None
    max_bad: float = 0.001
    views_per_block: int = 1024
    truth: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.views <= 2**20:
            raise SettingsError(f"--views {self.views}: choose 1..{2**20}")
        if self.k < 1:
            raise SettingsError(f"--k {self.k}: at least 1 class must be kept per view")
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"--seed {self.seed}: choose 0..2**63-1")
        if self.batch < 1:
            raise SettingsError(f"--batch {self.batch}: at least 1")
        if not 1 <= self.views_per_block <= MAX_VIEWS_PER_BLOCK:
            raise SettingsError(f"views_per_block {self.views_per_block}: choose 1..{MAX_VIEWS_PER_BLOCK}")
        if self.workers is not None and self.workers < 0:
            raise SettingsError(f"--workers {self.workers}: 0 or more")
        if not 0 <= self.max_bad <= 1:
            raise SettingsError(f"--max-bad {self.max_bad}: a share, 0..1")

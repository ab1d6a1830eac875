"""Label refinery: train on hard labels, let the model label the training views, train anew on what it says, repeat.

Source: Bagherinezhad et al. 2018, "Label Refinery" (arXiv 1805.02641). Every round's student sees the very views that
the model of the round before was asked about, and no hard label. That model is asked in evaluation mode: the paper's
code leaves its batch statistics and dropout in training mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buttress.errors import SettingsError, SourceError
from buttress.files import require_own_folder
from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.runs.run import CARD, Run
from buttress.sources import Source
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.training.data import TrainingData, refuse_unused
from buttress.training.settings import TrainingSettings
from buttress.training.train import train_on_source
from buttress.views.policy import Policy

ROUND = re.compile(r"round-[1-9][0-9]*\+?")


@dataclass(frozen=True, kw_only=True)
class Refinery:
    """Rounds of training on one source.

    Args:
        source: labelled images.
        policy: augmentation, of training and of labelling.
        model: `timm:` URI of the student; every round starts from it anew.
        out: folder of the rounds: `round-1` is the run on hard labels, `round-1+` what its model says, and so on.
        rounds: trainings in all, 2 and up.
        training: settings of every round; label smoothing is for the first.
        labelling: settings of every labelling.
        size: side of the views, pixels; none = the model's own.
        val: labelled images to score on.
        max_bad: largest share, 0..1, of images that may fail to decode.
        recipe: flags that make these rounds again; written to the recipe.yaml of every round's run.

    Raises:
        SettingsError: fewer than 2 rounds, a size below 1, or settings of the loss that no round would use.
        SourceError: images without classes.
    """

    source: Source
    policy: Policy
    model: str
    out: Path
    rounds: int
    training: TrainingSettings
    labelling: LabelSettings
    size: int | None = None
    val: Source | None = None
    max_bad: float = 0.001
    recipe: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.source.classes is None:
            raise SourceError(f"{self.source.uri}: has no classes to learn; put images in class sub-folders")
        if self.size is not None and self.size < 1:
            raise SettingsError(f"--size {self.size}: at least 1 pixel")
        refuse_unused(self.training.loss, soft=True, own_labels=True, auxiliary=False)
        if self.rounds < 2:
            raise SettingsError(f"--rounds {self.rounds}: at least 2, for the first trains on hard labels")

    def run(self) -> Iterator[Run]:
        """Do what is missing of every round; gives each round's run when it is finished.

        Raises:
            ButtressError: what is there is of other settings; data, model and settings do not fit together.
        """
        if not (self.run_of(1) / CARD).exists():
            require_own_folder(self.out, lambda name: ROUND.fullmatch(name) is not None, "a refinery")
        for number in range(1, self.rounds + 1):
            if number > 1:
                self._label(number - 1)
            yield self._train(number)

    def _label(self, number: int) -> None:
        classes = None if self.source.classes is None else tuple(self.source.classes)
        spec = TeacherSpec(uri=f"run:{self.run_of(number)}", source_classes=classes)
        label_source(self.source, spec, self.policy, self.labelling, self.labels_of(number))

    def _train(self, number: int) -> Run:
        first = number == 1
        data = TrainingData(
            source=self.source,
            policy=self.policy,
            reinforcement=None if first else open_reinforcement(self.labels_of(number - 1)),
            p=1.0,
            val=self.val,
            max_bad=self.max_bad,
        )
        settings = self.training.for_hard_labels() if first else self.training.without_smoothing()
        out = self.run_of(number)
        begun = (out / CARD).exists()
        return train_on_source(
            data,
            model=self.model,
            out=out,
            settings=settings,
            size=self.size,
            resume=begun,
            recipe=self.recipe,
        )

    def run_of(self, number: int) -> Path:
        """Folder of the run of a round, from 1."""
        return self.out / f"round-{number}"

    def labels_of(self, number: int) -> Path:
        """Folder of what the model of a round says."""
        return self.out / f"round-{number}+"

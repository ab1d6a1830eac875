"""Every draw of a training as a pure function of (seed, step, process): nothing of it needs to be saved.

So a training goes on from any step, with any number of processes, as if it had never stopped.
"""

from __future__ import annotations

import random

import numpy as np
import torch

from buttress.views.keys import WordSource

MODEL_SLOT, METHOD_SLOT = 5, 6  # slots below 256 belong to no op of a policy
_DOMAIN = 0x7374657073203031  # stands where a view's key has the sample's id hash


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Call it before the model's weights are drawn."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class StepRng:
    """Seeds torch and the methods' generator anew for every step.

    Args:
        seed: of the training, 0..2**63 - 1.
        rank: number of the process, from 0: each has its own draws in the model (dropout), all have the methods' same.
    """

    def __init__(self, seed: int, rank: int) -> None:
        self._words, self._rank = WordSource(seed), rank
        self.generator = torch.Generator()

    def seed(self, step: int) -> None:
        """Before step number `step` (from 0): torch's own generators, and `generator`, which is the methods'."""
        (word,) = self._words.words(step, _DOMAIN ^ self._rank, MODEL_SLOT, 1)
        # Not torch.manual_seed: where CUDA is not in use yet, it notes a stack trace each time, 3 % of a small step.
        torch.default_generator.manual_seed(word >> 1)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed(word >> 1)
        (word,) = self._words.words(step, _DOMAIN, METHOD_SLOT, 1)
        self.generator.manual_seed(word >> 1)

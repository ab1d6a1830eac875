"""The protocol between the trainer and every way to make a model smaller, elastic or shared while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torch import Generator, Tensor, nn

from buttress.models.packed import Entry
from buttress.weights.levels import Level


class Method(Protocol):
    """What the trainer asks of a method. It calls these in this order and knows no method by name.

    A weight method registers parametrizations, a structural method swaps modules. State lives in parameters and buffers
    of the module, so that a checkpoint of the module is a checkpoint of the method. Coordinates (where in a subspace,
    which width) are non-persistent tensor buffers. A forward is pure: whatever is updated once a step is updated in
    `before_step`. Several methods may act on one model; their passes are combined.
    """

    def prepare(self, model: nn.Module) -> None:
        """Change `model` in place, after its weights are loaded and before it is trained or a checkpoint is loaded.

        Keep the plain model's `Parameter` objects where they live on: their weight decay is carried over by identity. A
        parameter that a parametrization adds follows the one that it parametrizes.
        """

    def before_step(self, step: int, total_steps: int, generator: Generator) -> None:
        """Draw and update what the coming step needs.

        Args:
            step: number of the optimizer step, from 0.
            total_steps: steps of the whole training.
            generator: on the CPU; the only source of chance, seeded anew from (seed, step).
        """

    def passes(self, step: int) -> Sequence[Callable[[], object]]:
        """The forward passes of this step: each item, called, moves the model to the coordinates of one pass.

        It is called inside the pass's `parametrize.cached()`, before anything is in that cache.

        The losses of the passes are summed. At least one; a method without coordinates returns `(lambda: None,)`.
        """

    def auxiliary_loss(self, model: nn.Module) -> Tensor | None:
        """A 0-d loss that is added to that of the last pass of a step, after its forward; none where there is none."""

    def before_evaluation(self, model: nn.Module, images: Iterable[Tensor], *, last: bool) -> None:
        """Make `model` fit to be evaluated, e.g. re-estimate its batch statistics.

        Args:
            model: the prepared one; it may hold a moving average for its weights.
            images: training batches, normalised, float32 [B, 3, H, W], on the model's device; every iteration begins
                anew.
            last: these weights are the ones that are kept.
        """

    def materialise(self, model: nn.Module) -> None:
        """Turn a trained `model` in place into a plain one with the same logits: parametrizations removed, values baked
        in at the level that it stands at, swapped modules replaced by plain ones."""


class CompressionMethod(Method, Protocol):
    """A method that a run names in its card, so that its model can be built again."""

    @property
    def name(self) -> str:
        """As in `buttress compress --method`."""

    def attach(self, model: nn.Module) -> None:
        """What `prepare` makes of a plain model, with any values: a state dict is loaded into it next."""

    def levels(self) -> tuple[Level, ...]:
        """The levels to score and show, the first of them the one that the model stands at when it is loaded; none
        where the model has but one form."""

    def packed(self, model: nn.Module) -> dict[str, Entry]:
        """What `packed.write_packed` stores of a prepared model at the level that it stands at: the state dict that
        `materialise` would leave, each tensor as small as the method makes it."""

"""LCS: one training, one set of weights or a line of them, and every level of compression (arXiv 2110.04252)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from buttress.errors import SettingsError
from buttress.models.packed import Affine, Entry, Plain, Sparse
from buttress.weights.interpolation import corner_like
from buttress.weights.lcs_bits import Bits
from buttress.weights.lcs_keep import Keep
from buttress.weights.lcs_line import Start, dense_share
from buttress.weights.lcs_width import Width
from buttress.weights.levels import Level, move
from buttress.weights.settings import LcsLevel, LcsSettings
from buttress.weights.statistics import place_weights


class Regime(Protocol):
    """How one kind of level is trained."""

    def __init__(self, settings: LcsSettings, size: int | None = None) -> None: ...
    def attach(self, model: nn.Module, start: Start) -> None: ...
    def before_step(self, step: int, total_steps: int, generator: Generator) -> None: ...
    def passes(self) -> Sequence[Callable[[], object]]: ...
    def pull(self, model: nn.Module) -> Tensor | None: ...
    def before_evaluation(self, model: nn.Module, images: Iterable[Tensor], *, last: bool) -> None: ...
    def materialise(self, model: nn.Module) -> None: ...
    def levels(self) -> tuple[float, ...]: ...
    def encodings(self, model: nn.Module) -> dict[str, tuple[float, ...]]: ...


REGIMES: dict[LcsLevel, type[Regime]] = {"keep": Keep, "width": Width, "bits": Bits}


class Lcs:
    """One set of weights, or a line of them along the level, trained at levels drawn at random.

    Batch statistics of one level are wrong at another. So either they are kept for many levels (`norm` batch, ours), or
    batch norms are replaced by norms without statistics, as the paper has it: group norms (`keep`, `bits`) or instance
    norms (`width`). After `prepare`, `attach` and `before_evaluation` the model stands at its easiest level;
    `levels.set_level` moves it.

    Args:
        settings: which level, and what range of it.
        pretrained: the other end of a line begins near the model's weights, which are trained.
        size: of the model's images, pixels, at which widths are tried; none = the architecture's own.

    Raises (`prepare` and `attach`):
        ModelError: the model has no layer to act on, is prepared already, or cannot have these levels.
    """

    name = "lcs"

    def __init__(self, settings: LcsSettings, *, pretrained: bool = False, size: int | None = None) -> None:
        self.settings, self.pretrained = settings, pretrained
        self._regime = REGIMES[settings.level](settings, size)

    def levels(self) -> tuple[Level, ...]:
        return tuple(Level.of(self.settings.level, value) for value in self._regime.levels())

    def attach(self, model: nn.Module) -> None:
        self._regime.attach(model, lambda first: first.detach().clone())

    def prepare(self, model: nn.Module) -> None:
        self._regime.attach(model, lambda first: corner_like(first, pretrained=self.pretrained))

    def before_step(self, step: int, total_steps: int, generator: Generator) -> None:
        """Raises: SettingsError at the first step, where none would come after the warm-up."""
        warmup = self.settings.warmup
        if step == 0 and self.settings.level != "width" and dense_share(total_steps - 1, total_steps, warmup) > 0:
            raise SettingsError(f"lcs.warmup = {warmup:g}: no step of {total_steps} comes after it; train longer")
        self._regime.before_step(step, total_steps, generator)

    def passes(self, step: int) -> Sequence[Callable[[], object]]:
        return self._regime.passes()

    def auxiliary_loss(self, model: nn.Module) -> Tensor | None:
        """Of a line, `beta` times the squared cosine of the angle between its ends."""
        if self.settings.kind != "line" or self.settings.beta == 0:
            return None
        pull = self._regime.pull(model)
        return None if pull is None else self.settings.beta * pull

    def before_evaluation(self, model: nn.Module, images: Iterable[Tensor], *, last: bool) -> None:
        """Stand at the easiest level, of a target at the target; batch norms, where they are kept, get its statistics,
        and at last those of all levels.
        """
        low, high = self.settings.span
        target = self.settings.kind == "target"
        place_weights(model, Level.of(self.settings.level, low if target else high))
        self._regime.before_evaluation(model, images, last=last)
        if last and not target:
            move(model, Level.of(self.settings.level, high))

    def materialise(self, model: nn.Module) -> None:
        self._regime.materialise(model)

    def packed(self, model: nn.Module) -> dict[str, Entry]:
        """The materialised state dict of the level that the model stands at, zeros as a mask and integers as such."""
        how, plain = self.encodings(model), copy.deepcopy(model)
        self.materialise(plain)
        return {name: _entry(value, how.get(name)) for name, value in plain.state_dict().items()}

    def encodings(self, model: nn.Module) -> dict[str, tuple[float, ...]]:
        """How weights may be stored small, at the level that the model stands at; call it before `materialise`.

        Returns: names as in the materialised state dict; of `keep` those that have zeros, with nothing; of `bits` with
            (bits, scale, zero point), so that a weight is (q - zero point) * scale of a signed integer q of so many
            bits; of `width` none.
        """
        return self._regime.encodings(model)


def _entry(value: Tensor, how: tuple[float, ...] | None) -> Entry:
    if how is None:
        return Plain(value)
    if not how:
        zeros = value.numel() - int(value.count_nonzero())
        return (
            Sparse(value) if 8 * value.element_size() * zeros > value.numel() else Plain(value)
        )  # a mask is a bit each
    bits, scale, signed = how
    zero_point = int(signed) + 2 ** (int(bits) - 1)  # a file's integers have no sign
    integers = (value / scale).round() + zero_point
    return Affine(
        integers.to(torch.uint8), int(bits), torch.tensor([scale]), torch.tensor([float(zero_point)]), value.dtype
    )

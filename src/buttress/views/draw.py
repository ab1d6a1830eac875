"""From words to parameters: what happens to one view, free of its resolution.

Every decision takes a fixed number of words, and the mapping uses integers and float64 `+ - * / sqrt` only, so the
parameters are equal to the last bit on every machine. All lengths are fractions of the image (box) or of the view
(translations, erased boxes). The mapping is written down in docs/views.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import sqrt
from typing import Any, NamedTuple, TypeVar

from buttress.errors import PolicyError
from buttress.views.exp2 import exp2, log2
from buttress.views.keys import WordSource
from buttress.views.policy import (
    RESERVED_NUMBERS,
    CutMix,
    Filter,
    HorizontalFlip,
    MixUp,
    Op,
    Policy,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    ResizeCenterCrop,
)

Box = tuple[float, float, float, float]  # left, top, width, height

UNIT = 2.0**-53
REMEMBERED = 4096  # mixes; more than the views of a batch
PARTNER_SLOT = 256 * RESERVED_NUMBERS["Partner"]

# The ops of RandAugment in torchvision's order: a drawn index means the entry of this list.
RAND_AUGMENT_OPS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
# Strength at the last bin of the ops whose sign is drawn. Shears are slopes, translations shares of the view's side,
# rotations degrees counter-clockwise, the others are added to an enhancement factor of 1.
SIGNED_RANGES = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150.0 / 331.0,
    "TranslateY": 150.0 / 331.0,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
}


class Mix(NamedTuple):
    """What a view is mixed with and how: MixUp first, then CutMix, both with one partner. An immutable record.

    Fields:
        partner: row of the other image, which shows its own view of the same number.
        mixup: weight of the own image where the two lie over each other, 0.5..1; 1 = no MixUp.
        cutmix: the box that shows the partner alone, as fractions of the view; None = no CutMix.
    """

    partner: int
    mixup: float = 1.0
    cutmix: Box | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; floats survive exactly."""
        return {
            "partner": self.partner,
            "mixup": self.mixup,
            "cutmix": None if self.cutmix is None else list(self.cutmix),
        }


class ViewParameters(NamedTuple):
    """Everything that happens to one view; an immutable record (a tuple: it is made for every view of every epoch).

    Fields:
        box: the crop as fractions of the image; parts outside the image are black.
        flip: left and right swapped, after the crop.
        augment: (op, value) in the order drawn; values as in `SIGNED_RANGES`,
            bits kept (Posterize), threshold (Solarize).
        erase: boxes blacked out, as fractions of the view.
        antialias: filter of the evaluation resize; None = the training rule (linear, area when shrunk twofold).
        mix: what is done last, with another image; None = nothing.
    """

    box: Box
    flip: bool = False
    augment: tuple[tuple[str, float], ...] = ()
    erase: tuple[Box, ...] = ()
    antialias: Filter | None = None
    mix: Mix | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; floats survive exactly."""
        values: dict[str, Any] = {
            "box": list(self.box),
            "flip": self.flip,
            "augment": [list(pair) for pair in self.augment],
            "erase": [list(box) for box in self.erase],
            "antialias": self.antialias,
        }
        return values if self.mix is None else {**values, "mix": self.mix.to_json()}


def draw(
    policy: Policy, seed: int, id_hash: int, view: int, image_size: tuple[int, int], rows: int | None = None
) -> ViewParameters:
    """The parameters of one view; for many of them keep a `Drawer`.

    Args:
        policy: what may happen.
        seed: 0..2**63 - 1.
        id_hash: uint64 of the sample's id (`sources.identity.id_hash`).
        view: number of the view, from 0.
        image_size: (width, height) of the image in pixels.
        rows: M, images that partners are drawn from; needed where the policy mixes.

    Raises: PolicyError for a seed out of range, or a policy that mixes without rows.
    """
    return Drawer(policy, seed, rows).parameters(id_hash, view, image_size)


class Drawer:
    """Draws the parameters of views under one policy and seed; picklable.

    It remembers the last mixes that it drew: which partner a view needs is asked before the view is drawn, and after.

    Args:
        policy: what may happen.
        seed: 0..2**63 - 1.
        rows: M, at least 1: partners are rows 0..M - 1. Needed where the policy mixes, of no effect elsewhere.

    Raises: PolicyError for a seed out of range, or a policy that mixes without rows.
    """

    def __init__(self, policy: Policy, seed: int, rows: int | None = None) -> None:
        self.policy = policy
        self.seed = seed
        self.rows = rows
        self._source = WordSource(seed)
        (crop_slot, crop), *rest = zip(policy.slots(), policy.ops, strict=True)
        self._crop_slot = crop_slot
        self._crop: Op = crop
        self._crop_box = _CROPS[type(crop)]
        self._antialias = crop.interpolation if isinstance(crop, ResizeCenterCrop) else None
        self._flips = _of_kind(rest, HorizontalFlip)
        self._augments = _of_kind(rest, RandAugment)
        self._erasings = _of_kind(rest, RandomErasing)
        self._mixups = _of_kind(rest, MixUp)
        self._cutmixes = _of_kind(rest, CutMix)
        self._mix = lru_cache(maxsize=REMEMBERED)(self._drawn_mix)
        if policy.mixes and not rows:
            raise PolicyError("policy: MixUp and CutMix need to know how many images there are to mix with (rows)")

    def mix(self, id_hash: int, view: int) -> Mix | None:
        """What view `view` of the sample with `id_hash` is mixed with, and how; None = with nothing."""
        return self._mix(id_hash, view)

    def _drawn_mix(self, id_hash: int, view: int) -> Mix | None:
        words = partial(self._source.words, view, id_hash)
        weight, box = 1.0, None
        for slot, mixup in self._mixups:
            weight = _mixup_weight(mixup, words, slot)
        for slot, cutmix in self._cutmixes:
            box = _cutmix_box(cutmix, words, slot)
        if weight == 1.0 and box is None:
            return None
        assert self.rows is not None
        return Mix(words(PARTNER_SLOT, 1)[0] % self.rows, weight, box)

    def parameters(self, id_hash: int, view: int, image_size: tuple[int, int]) -> ViewParameters:
        """The parameters of view `view` of the sample with `id_hash`, whose image is `image_size` (width, height)."""
        words, flip = partial(self._source.words, view, id_hash), False
        for slot, flip_op in self._flips:
            flip ^= unit(words(slot, 1)[0]) < flip_op.p
        return ViewParameters(
            self._crop_box(self._crop, words, self._crop_slot, image_size),
            flip,
            tuple([pair for slot, op in self._augments for pair in _rand_augment(op, words, slot)]),
            tuple([box for slot, op in self._erasings for box in _erased_boxes(op, words, slot)]),
            self._antialias,
            self.mix(id_hash, view) if self._mixups or self._cutmixes else None,
        )

    def __reduce__(self) -> tuple[type[Drawer], tuple[Policy, int, int | None]]:
        return Drawer, (self.policy, self.seed, self.rows)


Words = Callable[[int, int], list[int]]
Kind = TypeVar("Kind", bound=Op)


def _of_kind(slotted: list[tuple[int, Op]], kind: type[Kind]) -> tuple[tuple[int, Kind], ...]:
    return tuple((slot, op) for slot, op in slotted if isinstance(op, kind))


def unit(word: int) -> float:
    """A word as a float64 in [0, 1): its top 53 bits."""
    return (word >> 11) * UNIT


def below(word: int, count: int) -> int:
    """A word as an integer in 0..count - 1 by multiply-shift of its top 32 bits (bias below count / 2**32)."""
    return ((word >> 32) * count) >> 32


def log_uniform(word: int, low: float, high: float) -> float:
    """A word as a value in low..high whose logarithm is uniform."""
    start, end = _log2_ends(low, high)
    value = exp2(start + unit(word) * (end - start))
    return low if value < low else high if value > high else value


@lru_cache(maxsize=64)
def _log2_ends(low: float, high: float) -> tuple[float, float]:
    return log2(low), log2(high)


def _random_resized_crop(op: RandomResizedCrop, words: Words, slot: int, image_size: tuple[int, int]) -> Box:
    """Words: area, ratio, left, top. One try: a box too large for the image shrinks to fit and keeps its ratio."""
    area_word, ratio_word, left_word, top_word = words(slot, 4)
    (least, greatest), (low, high) = op.scale, op.ratio
    area = least + unit(area_word) * (greatest - least)
    ratio = log_uniform(ratio_word, low, high)
    aspect = image_size[0] / image_size[1]
    width = sqrt(area * ratio / aspect)
    height = sqrt(area * aspect / ratio)
    excess = max(width, height, 1.0)
    width, height = width / excess, height / excess
    return unit(left_word) * (1.0 - width), unit(top_word) * (1.0 - height), width, height


def _random_crop(op: RandomCrop, words: Words, slot: int, image_size: tuple[int, int]) -> Box:
    """Words: left, top."""
    left_word, top_word = words(slot, 2)
    return op.padding * (2.0 * unit(left_word) - 1.0), op.padding * (2.0 * unit(top_word) - 1.0), 1.0, 1.0


def _center_crop(op: ResizeCenterCrop, words: Words, slot: int, image_size: tuple[int, int]) -> Box:
    """No words."""
    side = op.crop_fraction * min(image_size)
    width, height = side / image_size[0], side / image_size[1]
    return (1.0 - width) / 2.0, (1.0 - height) / 2.0, width, height


_CROPS: dict[type[Op], Callable[[Any, Words, int, tuple[int, int]], Box]] = {
    RandomResizedCrop: _random_resized_crop,
    RandomCrop: _random_crop,
    ResizeCenterCrop: _center_crop,
}


def _rand_augment(op: RandAugment, words: Words, slot: int) -> tuple[tuple[str, float], ...]:
    """Words, for each op: index, sign (top bit set = negative; taken, and of no effect, for unsigned ops too)."""
    space = _augmentation_space(op.magnitude, op.num_bins)
    drawn = words(slot, 2 * op.num_ops)
    return tuple(
        [space[below(index, len(space))][sign >> 63] for index, sign in zip(drawn[::2], drawn[1::2], strict=True)]
    )


@lru_cache(maxsize=64)
def _augmentation_space(magnitude: int, num_bins: int) -> tuple[tuple[tuple[str, float], tuple[str, float]], ...]:
    """Each op of `RAND_AUGMENT_OPS` with its value for a positive and for a negative sign."""
    steps = num_bins - 1
    values = {name: top * magnitude / steps for name, top in SIGNED_RANGES.items()}
    unsigned = {
        # Bits kept: 8 less a rounded (halves to even) share of 4.
        "Posterize": float(8 - round(4 * magnitude / steps)),
        "Solarize": 255.0 - 255.0 * magnitude / steps,
    }
    return tuple(
        ((name, values[name]), (name, -values[name]))
        if name in values
        else ((name, unsigned.get(name, 0.0)), (name, unsigned.get(name, 0.0)))
        for name in RAND_AUGMENT_OPS
    )


def _erased_boxes(op: RandomErasing, words: Words, slot: int) -> tuple[Box, ...]:
    """Words: whether, area, ratio (height / width), left, top."""
    whether, area_word, ratio_word, left_word, top_word = words(slot, 5)
    if unit(whether) >= op.p:
        return ()
    (least, greatest), (low, high) = op.scale, op.ratio
    area = least + unit(area_word) * (greatest - least)
    ratio = log_uniform(ratio_word, low, high)
    width, height = min(sqrt(area / ratio), 1.0), min(sqrt(area * ratio), 1.0)
    return ((unit(left_word) * (1.0 - width), unit(top_word) * (1.0 - height), width, height),)


def _mixup_weight(op: MixUp, words: Words, slot: int) -> float:
    """Words: whether, weight. The own image's weight, 0.5..1; 1 = not applied."""
    whether, weight_word = words(slot, 2)
    return 1.0 - unit(weight_word) / 2.0 if unit(whether) < op.p else 1.0


def _cutmix_box(op: CutMix, words: Words, slot: int) -> Box | None:
    """Words: whether, share, x, y of the centre. The square is cut off at the view's borders."""
    whether, share_word, x_word, y_word = words(slot, 4)
    if unit(whether) >= op.p:
        return None
    half = sqrt(1.0 - unit(share_word)) / 2.0
    (left, right), (top, bottom) = _clipped(unit(x_word), half), _clipped(unit(y_word), half)
    return left, top, right - left, bottom - top


def _clipped(centre: float, half: float) -> tuple[float, float]:
    return max(centre - half, 0.0), min(centre + half, 1.0)

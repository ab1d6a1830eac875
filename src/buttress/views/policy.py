"""What may happen to a view: a typed list of augmentation ops, their fixed numbers and their JSON form."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from buttress.errors import PolicyError
from buttress.nearest import did_you_mean

POLICY_VERSION = 1  # of the mapping from words to parameters (docs/views.md)
MAX_OPS = 16
RESERVED_NUMBERS = {"Partner": 9}  # the draw of the image that MixUp and CutMix take from: no op of its own

Filter = Literal["bilinear", "bicubic", "area"]


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A box of random area and aspect, stretched to the output (Szegedy et al. 2015), in one closed-form try.

    Args:
        scale: least and greatest share of the image's area, in (0, 1].
        ratio: least and greatest width / height of the box in pixels, positive.
    """

    number: ClassVar[int] = 1
    stage: ClassVar[int] = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _check_range(self, "scale", 0.0, 1.0)
        _check_range(self, "ratio", 0.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """The whole image, squeezed to the output's shape and moved by up to `padding` of its side over black.

    Args:
        padding: greatest shift as a share of the side, in 0..1 (the CIFAR recipe's 4 of 32 pixels are 0.125).
    """

    number: ClassVar[int] = 2
    stage: ClassVar[int] = 0
    padding: float = 0.125

    def __post_init__(self) -> None:
        _check_number(self, "padding", 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip:
    """Left and right swapped with probability `p`, in 0..1."""

    number: ClassVar[int] = 3
    stage: ClassVar[int] = 1
    p: float = 0.5

    def __post_init__(self) -> None:
        _check_number(self, "p", 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """`num_ops` ops drawn evenly, with replacement, from torchvision's 14 (Cubuk et al. 2020).

    Args:
        num_ops: ops per view, 1..16.
        magnitude: strength shared by all ops, a bin in 0..num_bins - 1.
        num_bins: bins of the strength scale, 2..1000.
    """

    number: ClassVar[int] = 4
    stage: ClassVar[int] = 2
    num_ops: int = 2
    magnitude: int = 9
    num_bins: int = 31

    def __post_init__(self) -> None:
        _check_whole(self, "num_ops", 1, 16)
        _check_whole(self, "num_bins", 2, 1000)
        _check_whole(self, "magnitude", 0, self.num_bins - 1)


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """A box blacked out with probability `p` (Zhong et al. 2020).

    Args:
        p: probability, in 0..1.
        scale: least and greatest share of the view's area, in (0, 1].
        ratio: least and greatest height / width of the box, positive.
    """

    number: ClassVar[int] = 5
    stage: ClassVar[int] = 3
    p: float = 0.25
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        _check_number(self, "p", 0.0, 1.0)
        _check_range(self, "scale", 0.0, 1.0)
        _check_range(self, "ratio", 0.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class ResizeCenterCrop:
    """The evaluation look: the centre square of `crop_fraction` x the shorter side, resized with antialiasing.

    Args:
        crop_fraction: side of the square as a share of the image's shorter side, in (0, 1].
        interpolation: filter of the resize.
    """

    number: ClassVar[int] = 6
    stage: ClassVar[int] = 0
    crop_fraction: float = 0.875
    interpolation: Filter = "bicubic"

    def __post_init__(self) -> None:
        _check_number(self, "crop_fraction", 0.0, 1.0, above=True)
        if self.interpolation not in get_args(Filter):
            _refuse(self, "interpolation", f"{self.interpolation!r}, not one of {', '.join(get_args(Filter))}")


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """With probability `p`, in 0..1, the view laid over the same view of another image (Zhang et al. 2018).

    The own image's weight is even in 0.5..1: Beta(1, 1), reflected so that the own image dominates.
    """

    number: ClassVar[int] = 7
    stage: ClassVar[int] = 4
    p: float = 0.5

    def __post_init__(self) -> None:
        _check_number(self, "p", 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """With probability `p`, in 0..1, a box of the view out of the same view of another image (Yun et al. 2019).

    The box's share of the view is even in 0..1 before the borders cut it. With MixUp too, the image is the same one.
    """

    number: ClassVar[int] = 8
    stage: ClassVar[int] = 5
    p: float = 0.5

    def __post_init__(self) -> None:
        _check_number(self, "p", 0.0, 1.0)


Op = RandomResizedCrop | RandomCrop | HorizontalFlip | RandAugment | RandomErasing | ResizeCenterCrop | MixUp | CutMix
OPS: dict[str, type[Op]] = {kind.__name__: kind for kind in get_args(Op)}


@dataclass(frozen=True)
class Policy:
    """Ops in the order they act: one crop, then flips, RandAugment, erasing, at most one MixUp and one CutMix.

    All but the crop may be left out.

    Raises: PolicyError when the crop is missing, the crop or a mixing op is doubled, or the order is another.
    """

    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", tuple(self.ops))
        for op in self.ops:
            if not isinstance(op, get_args(Op)):
                raise PolicyError(f"policy: {op!r} is not an op; ops are {', '.join(OPS)}")
        if len(self.ops) > MAX_OPS:
            raise PolicyError(f"policy: {len(self.ops)} ops; at most {MAX_OPS}")
        stages = [op.stage for op in self.ops]
        mixing = [type(op) for op in self.ops if isinstance(op, MixUp | CutMix)]
        if stages.count(0) != 1 or stages != sorted(stages) or len(mixing) > len(set(mixing)):
            order = " -> ".join(type(op).__name__ for op in self.ops) or "nothing"
            raise PolicyError(
                f"policy: {order}; want exactly one crop first (RandomResizedCrop, RandomCrop or ResizeCenterCrop), "
                "then HorizontalFlip, RandAugment, RandomErasing, one MixUp, one CutMix in this order"
            )

    @property
    def mixes(self) -> bool:
        """Whether views may be mixed with other images."""
        return any(isinstance(op, MixUp | CutMix) for op in self.ops)

    @property
    def unmixed(self) -> Policy:
        """The same without MixUp and CutMix; all other draws stay."""
        return Policy(tuple(op for op in self.ops if not isinstance(op, MixUp | CutMix)))

    def slots(self) -> tuple[int, ...]:
        """The slot of each op: 256 x its fixed number + its occurrence, so inserting an op moves no other's draws."""
        seen: Counter[int] = Counter()
        slots = []
        for op in self.ops:
            slots.append(256 * op.number + seen[op.number])
            seen[op.number] += 1
        return tuple(slots)

    def to_json(self) -> dict[str, Any]:
        """The policy in full, as plain JSON values."""
        return {"version": POLICY_VERSION, "ops": [_op_to_json(op) for op in self.ops]}

    @staticmethod
    def from_json(value: Any) -> Policy:
        """Read what `to_json` wrote; an op's settings that are left out take their defaults.

        Raises: PolicyError for an unknown op, key or version, naming the nearest known one.
        """
        _check_keys("policy", value, ("version", "ops"))
        if value.get("version") != POLICY_VERSION:
            raise PolicyError(f"policy: version {value.get('version')!r}; this program reads version {POLICY_VERSION}")
        if not isinstance(value.get("ops"), list):
            raise PolicyError('policy: "ops" is not a list of ops')
        return Policy(tuple(_op_from_json(f"policy op {i}", entry) for i, entry in enumerate(value["ops"])))


def _op_to_json(op: Op) -> dict[str, Any]:
    settings = {field.name: getattr(op, field.name) for field in fields(op)}
    return {"op": type(op).__name__} | {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def _op_from_json(place: str, entry: Any) -> Op:
    name = entry.get("op") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise PolicyError(f'{place}: not an object with an "op"')
    if name not in OPS:
        raise PolicyError(f"{place}: unknown op {name!r}{did_you_mean(name, OPS)}")
    kind = OPS[name]
    _check_keys(f"{place} ({name})", entry, ("op", *(f.name for f in fields(kind))))
    settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items() if key != "op"}
    op: Op = kind(**settings)
    return op


def _check_keys(place: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise PolicyError(f"{place}: not a JSON object")
    for key in value:
        if key not in known:
            raise PolicyError(f"{place}: unknown key {key!r}{did_you_mean(str(key), known)}")


def _refuse(op: Any, key: str, what: str) -> None:
    raise PolicyError(f"{type(op).__name__}: {key} is {what}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_number(op: Any, key: str, low: float, high: float, above: bool = False) -> None:
    value = getattr(op, key)
    if not _is_number(value) or not low <= value <= high or (above and value == low):
        _refuse(op, key, f"{value!r}, not a number in {'(' if above else '['}{low:g}, {high:g}]")
    object.__setattr__(op, key, float(value))


def _check_whole(op: Any, key: str, low: int, high: int) -> None:
    value = getattr(op, key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _refuse(op, key, f"{value!r}, not a whole number in {low}..{high}")


def _check_range(op: Any, key: str, low: float, high: float) -> None:
    value = getattr(op, key)
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or not all(map(_is_number, pair)) or not low < pair[0] <= pair[1] <= high:
        _refuse(op, key, f"{value!r}, not a pair (least, greatest) in ({low:g}, {high:g}]")
    object.__setattr__(op, key, (float(pair[0]), float(pair[1])))

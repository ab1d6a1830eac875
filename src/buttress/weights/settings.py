"""What a person may choose about a method. No torch in here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from buttress.errors import SettingsError

LevelKind = Literal["at", "keep", "width", "bits"]
MethodName = Literal["subspace", "lcs", "dkm"]
SubspaceKind = Literal["line", "curve", "simplex"]
LcsKind = Literal["point", "line", "target"]
LcsLevel = Literal["keep", "width", "bits"]
RANGES: dict[LcsLevel, tuple[float, float]] = {"keep": (0.025, 1.0), "width": (0.25, 1.0), "bits": (3, 8)}


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"{name} = {value}: {wanted}")


def _changed(settings: Any, names: Iterable[str]) -> list[str]:
    return [name for name in names if getattr(settings, name) != getattr(type(settings)(), name)]


@dataclass(frozen=True, kw_only=True)
class SubspaceSettings:
    """A family of models between corners (arXiv 2102.10472).

    Args:
        kind: line, curve (a quadratic Bezier) or simplex.
        corners: of a simplex, 2..6; a line has 2, a curve 3.
        draw: one point a step for the network, or one for each layer.
        beta: 0 and up; pull on the corners' squared cosine, towards right angles.
    """

    kind: SubspaceKind = "line"
    corners: int = 3
    draw: Literal["network", "layer"] = "network"
    beta: float = 1.0

    def __post_init__(self) -> None:
        _require(self.kind in get_args(SubspaceKind), "subspace.kind", self.kind, "must be line, curve or simplex")
        _require(2 <= self.corners <= 6, "subspace.corners", self.corners, "must be 2 to 6")
        _require(self.draw in ("network", "layer"), "subspace.draw", self.draw, "must be network or layer")
        _require(0 <= self.beta < math.inf, "subspace.beta", self.beta, "must be 0 or more")

    def idle(self) -> list[str]:
        """Fields that were given and change nothing."""
        return _changed(self, ("corners",) if self.kind != "simplex" else ())

    @property
    def count(self) -> int:
        """How many corners there are."""
        return {"line": 2, "curve": 3, "simplex": self.corners}[self.kind]


@dataclass(frozen=True, kw_only=True)
class LcsSettings:
    """One set of weights for every level of compression (arXiv 2110.04252).

    Args:
        level: keep (share of weights that are not zero), width (share of channels) or bits.
        kind: point (one set of weights), line (two, blended by the level) or target (sparse at `low` alone).
        low: the hardest level; the default is 0.025 for keep, 0.25 for width, 3 for bits.
        high: the easiest level; the default is 1, or 8 bits.
        warmup: share of all updates, 0..1, before weights are dropped (point), while ever more are (line, target), or
            before activations are quantised. The paper's long trainings have 0.8.
        beta: 0 and up; pull on the squared cosine of a line's ends, towards a right angle.
        draw: of keep, point: how the share of a step is drawn between low and high, evenly (uniform, as the paper) or
            evenly in its logarithm (log), which trains sparse levels more.
        norm: of keep and bits: batch norms with statistics for many levels, or group norms, which have none; widths
            have instance norms.
    """

    level: LcsLevel = "keep"
    kind: LcsKind = "point"
    low: float | None = None
    high: float | None = None
    warmup: float = 0.5
    beta: float = 1.0
    draw: Literal["log", "uniform"] = "log"
    norm: Literal["batch", "group"] = "batch"

    def __post_init__(self) -> None:
        _require(self.draw in ("log", "uniform"), "lcs.draw", self.draw, "must be log or uniform")
        _require(self.norm in ("batch", "group"), "lcs.norm", self.norm, "must be batch or group")
        _require(self.level in get_args(LcsLevel), "lcs.level", self.level, "must be keep, width or bits")
        _require(self.kind in get_args(LcsKind), "lcs.kind", self.kind, "must be point, line or target")
        _require(self.kind != "target" or self.level == "keep", "lcs.kind", self.kind, "is of lcs.level keep alone")
        low, high = self.span
        for name, value in (("lcs.low", low), ("lcs.high", high)):
            if self.level == "bits":
                _require(value in range(1, 9), name, f"{value:g}", "must be a whole number of bits, 1 to 8")
            else:
                _require(0 < value <= 1, name, f"{value:g}", "must be a share, above 0 and at most 1")
        _require(low <= high, "lcs.low", f"{low:g}", f"must not be above lcs.high, which is {high:g}")
        _require(0 <= self.warmup < 1, "lcs.warmup", self.warmup, "must be at least 0 and below 1")
        _require(0 <= self.beta < math.inf, "lcs.beta", self.beta, "must be 0 or more")

    def idle(self) -> list[str]:
        """Fields that were given and change nothing."""
        none: list[str] = []
        none += ["beta"] if self.kind != "line" else []
        none += ["high"] if self.kind == "target" else []
        none += ["draw"] if (self.level, self.kind) != ("keep", "point") else []
        none += ["norm"] if self.level == "width" or self.kind == "target" else []
        none += ["warmup"] if self.level == "width" else []
        return _changed(self, none)

    @property
    def span(self) -> tuple[float, float]:
        """The hardest and the easiest level."""
        low, high = RANGES[self.level]
        return low if self.low is None else self.low, high if self.high is None else self.high


@dataclass(frozen=True, kw_only=True)
class DkmSettings:
    """Weights as indices into small palettes that are learnt (arXiv 2108.12659).

    Args:
        bits: 1..8; a palette has 2^bits entries.
        classifier_bits: of the last layer, 1..8; none = as the others, but at least 4.
        cluster_dim: how many weights, of as many neighbouring output channels, share an index.
        group_size: output channels that share a palette, rounded up to a divisor of a layer's; none = a layer has one.
        per_channel_scale: divide each output channel by its largest absolute weight before clustering.
        tau: above 0; softness of the assignment while training, in units of the variance that a layer began with; none
            = the finer the palette, the harder: 0.64 / (cluster_dim x 4^(bits / cluster_dim)).
        iterations: of k-means in a forward, at least 1.
        min_weights: layers of at most so many weights stay as they are.
    """

    bits: int = 2
    classifier_bits: int | None = None
    cluster_dim: int = 1
    group_size: int | None = None
    per_channel_scale: bool = False
    tau: float | None = None
    iterations: int = 3
    min_weights: int = 1024

    def __post_init__(self) -> None:
        _require(1 <= self.bits <= 8, "dkm.bits", self.bits, "must be 1 to 8")
        last = self.classifier_bits
        _require(last is None or 1 <= last <= 8, "dkm.classifier_bits", last, "must be 1 to 8")
        _require(self.cluster_dim >= 1, "dkm.cluster_dim", self.cluster_dim, "must be at least 1")
        group = self.group_size
        _require(group is None or group >= 1, "dkm.group_size", group, "must be at least 1")
        _require(0 < self.softness < math.inf, "dkm.tau", self.tau, "must be above 0")
        _require(self.iterations >= 1, "dkm.iterations", self.iterations, "must be at least 1")
        _require(self.min_weights >= 0, "dkm.min_weights", self.min_weights, "must be 0 or more")

    def idle(self) -> list[str]:
        """None: every field counts."""
        return []

    def of_classifier(self) -> DkmSettings:
        """The same for the last layer, whose every weight is a class's own."""
        return replace(self, bits=max(self.bits, 4) if self.classifier_bits is None else self.classifier_bits)

    @property
    def softness(self) -> float:
        """`tau`, or what stands for none: of normal weights a sixth or so of where entries would melt together."""
        return 0.64 / (self.cluster_dim * 4 ** (self.bits / self.cluster_dim)) if self.tau is None else self.tau


MethodSettings = SubspaceSettings | LcsSettings | DkmSettings

"""What a model wants its images to be: size, normalisation and how they were resized when it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from buttress.errors import ModelError

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """The input a model was made for.

    size: height and width in pixels, at least 1.
    mean, std: per RGB channel, for values in 0..1; std above 0.
    interpolation: `bilinear`, `bicubic`, ... as timm names it.
    crop_pct: share of the resized image's side that the centre crop keeps, above 0.
    """

    size: int
    mean: Triple
    std: Triple
    interpolation: str
    crop_pct: float

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std, self.crop_pct)
        if len(self.mean) != 3 or len(self.std) != 3 or not all(math.isfinite(number) for number in numbers):
            raise ModelError(f"preprocessing: mean {self.mean} and std {self.std} must be three finite numbers each")
        if self.size < 1 or min(self.std) <= 0 or self.crop_pct <= 0:
            raise ModelError(f"preprocessing: size {self.size}, std {self.std}, crop_pct {self.crop_pct}: must be > 0")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by `from_json`."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: Any, place: str) -> Preprocessing:
        """Read what `to_json` wrote; `place` names it in errors.

        Raises: ModelError, for a missing or unknown key or a value of another kind.
        """
        keys = set(cls.__dataclass_fields__)
        if not isinstance(value, dict) or set(value) != keys:
            raise ModelError(f"{place}: preprocessing must have exactly the keys {', '.join(sorted(keys))}")
        try:
            return cls(
                size=int(value["size"]),
                mean=_triple(value["mean"]),
                std=_triple(value["std"]),
                interpolation=str(value["interpolation"]),
                crop_pct=float(value["crop_pct"]),
            )
        except (TypeError, ValueError) as failure:
            raise ModelError(f"{place}: preprocessing is malformed ({failure})") from failure

    def to_metadata(self) -> dict[str, str]:
        """The text keys of a weights file's metadata (`mean` as `0.5,0.5,0.5`), read back by `from_metadata`."""
        return {
            "input_size": str(self.size),
            "mean": ",".join(map(repr, self.mean)),
            "std": ",".join(map(repr, self.std)),
            "interpolation": self.interpolation,
            "crop_pct": repr(self.crop_pct),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], otherwise: Preprocessing, place: str) -> Preprocessing:
        """Take each setting from a weights file's metadata where it stands there, else from `otherwise`.

        Raises: ModelError, naming `place`, where a value cannot be read.
        """
        try:
            return cls(
                size=int(metadata["input_size"].split(",")[-1]) if "input_size" in metadata else otherwise.size,
                mean=_triple(metadata["mean"].split(",")) if "mean" in metadata else otherwise.mean,
                std=_triple(metadata["std"].split(",")) if "std" in metadata else otherwise.std,
                interpolation=metadata.get("interpolation", otherwise.interpolation),
                crop_pct=float(metadata.get("crop_pct", otherwise.crop_pct)),
            )
        except ValueError as failure:
            raise ModelError(f"{place}: preprocessing in its metadata cannot be read ({failure})") from failure

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """From what `timm.data.resolve_model_data_config` gives (`input_size` is channels, height, width).

        Raises: ModelError, for a model that does not take RGB.
        """
        if config["input_size"][0] != 3:
            raise ModelError(f"a model of {config['input_size'][0]} input channels; RGB models only")
        return cls(
            size=int(config["input_size"][-1]),
            mean=_triple(config["mean"]),
            std=_triple(config["std"]),
            interpolation=str(config["interpolation"]),
            crop_pct=float(config["crop_pct"]),
        )


def _triple(values: Any) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue

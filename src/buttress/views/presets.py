"""Policies by name, and the evaluation look."""

from __future__ import annotations

from math import floor
from pathlib import Path
from typing import get_args

from buttress.errors import PolicyError
from buttress.files import read_json
from buttress.nearest import did_you_mean
from buttress.views.policy import (
    CutMix,
    Filter,
    HorizontalFlip,
    MixUp,
    Policy,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    ResizeCenterCrop,
)

_MIXING = (MixUp(), CutMix())
_SMALL = (RandomCrop(padding=4 / 32), HorizontalFlip())

PRESETS = {
    # Random resized crop + flip: the mildest look of the dataset reinforcement paper ("RRC").
    "crop": Policy((RandomResizedCrop(), HorizontalFlip())),
    # The paper's recommended look ("+RA/RE"; Faghri et al. 2023, arXiv 2303.08983).
    "randaug": Policy((RandomResizedCrop(), HorizontalFlip(), RandAugment(), RandomErasing())),
    # For sets of about 32 pixels, where a random resized crop leaves too little (the CIFAR recipe's 4-pixel padding).
    "small-crop": Policy(_SMALL),
    "small": Policy((*_SMALL, RandAugment(), RandomErasing())),
    # The paper's "+M*" and "+M*+R*": MixUp and CutMix, each in half of the views, alone and with all of the above.
    "mix": Policy((RandomResizedCrop(), HorizontalFlip(), *_MIXING)),
    "mix+randaug": Policy((RandomResizedCrop(), HorizontalFlip(), RandAugment(), RandomErasing(), *_MIXING)),
    "small-mix": Policy((*_SMALL, *_MIXING)),
    "small-mix+randaug": Policy((*_SMALL, RandAugment(), RandomErasing(), *_MIXING)),
}


def preset(name: str) -> Policy:
    """The policy of that name; "randaug" is the recommended one, those for sets of about 32 pixels begin with "small".

    Raises: PolicyError for another name.
    """
    if name not in PRESETS:
        raise PolicyError(f"no policy {name!r}; there are {', '.join(PRESETS)}{did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def eval_policy(size: int, crop_pct: float, interpolation: str) -> Policy:
    """The evaluation look of a model with timm's data config: shorter side to size / crop_pct, centre crop of `size`.

    Args:
        size: side of the model's input in pixels; timm rounds the resized side to whole pixels, and so do we.
        crop_pct: in (0, 1].
        interpolation: "bilinear", "bicubic" or "area".

    Raises: PolicyError.
    """
    filters = get_args(Filter)
    if interpolation not in filters:
        raise PolicyError(f"no interpolation {interpolation!r}; there are {', '.join(filters)}")
    if not 0.0 < crop_pct <= 1.0:
        raise PolicyError(f"crop_pct is {crop_pct!r}, not a number in (0, 1]")
    filter_name: Filter = filters[filters.index(interpolation)]
    return Policy((ResizeCenterCrop(crop_fraction=size / floor(size / crop_pct), interpolation=filter_name),))


def read_policy(name: str) -> Policy:
    """The preset of that name, or the policy in a JSON file (a path that ends in .json).

    Raises: PolicyError, where there is no such preset or the file is not a policy.
    """
    if not name.endswith(".json"):
        return preset(name)
    try:
        return Policy.from_json(read_json(Path(name), PolicyError))
    except PolicyError as failure:
        raise PolicyError(f"{name}: {failure}" if name not in str(failure) else str(failure)) from failure

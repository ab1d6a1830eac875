"""Builds tests/golden/views.json. `cd tests && python -m views.golden` writes it anew: only when a version changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from buttress.sources.identity import id_hash
from buttress.views.draw import Drawer, draw
from buttress.views.policy import OPS, RESERVED_NUMBERS, Policy, RandAugment, RandomErasing, ResizeCenterCrop
from buttress.views.presets import preset
from buttress.views.probes import PROBES, probe_picture
from buttress.views.render import Renderer

from .philox import philox_block, reference_words

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "views.json"

IDS = ("tench/0001.jpg", "cafe\u0301/\u00e4.png", "")  # the second is not NFC-normalised
POLICIES = {
    "crop": preset("crop"),
    "randaug": preset("randaug"),
    "small": preset("small"),
    "twice": Policy(
        (*preset("randaug").ops[:2], RandAugment(), RandAugment(num_ops=1, magnitude=17), RandomErasing(p=1.0))
    ),
    "evaluation": Policy((ResizeCenterCrop(crop_fraction=0.875),)),
    "mix": preset("mix"),
    "mix+randaug": preset("mix+randaug"),
    "small-mix": preset("small-mix"),
}
ROWS = 1_281_167  # that the partners of the drawn vectors are among
SIZES = ((500, 375), (32, 32), (3, 5000))
NAMES = ((0, 0, 0), (7, 3, 0x0123456789ABCDEF), (2**63 - 1, 2**64 - 1, 2**64 - 1))  # seed, view, id


def word_vectors() -> list[dict[str, Any]]:
    """Words of every slot, the reserved ones too, from the plain-integer Philox; 64-bit numbers as hex text."""
    numbers = sorted([kind.number for kind in OPS.values()] + list(RESERVED_NUMBERS.values()))
    slots = [0, *(256 * number for number in numbers), 1025]
    return [
        {
            "seed": hex(seed),
            "view": hex(view),
            "id": hex(id_),
            "slot": slot,
            "block_0": [hex(word) for word in philox_block((0, slot, view, id_), (seed, 0))],
            "words": [hex(word) for word in reference_words(seed, view, id_, slot, 5)],
        }
        for seed, view, id_ in NAMES
        for slot in slots
    ]


def draw_vectors() -> list[dict[str, Any]]:
    """Parameters of several policies, ids, views and image sizes."""
    return [
        {
            "policy": name,
            "seed": 42,
            "sample": sample,
            "id": hex(id_hash(sample)),
            "view": view,
            "image_size": list(size),
            **({"rows": ROWS} if policy.mixes else {}),
            "parameters": draw(policy, 42, id_hash(sample), view, size, ROWS).to_json(),
        }
        for name, policy in POLICIES.items()
        for sample in IDS
        for view, size in enumerate(SIZES)
    ]


def mix_vectors() -> list[dict[str, Any]]:
    """What views of the preset "mix" are mixed with and how, for several numbers of rows; null = with nothing."""
    return [
        {
            "seed": 42,
            "id": hex(id_hash(sample)),
            "view": view,
            "rows": rows,
            "mix": None if mix is None else mix.to_json(),
        }
        for sample in IDS
        for view, rows in enumerate((1, 7, ROWS, 2**40, 65_536, 2, 3, 1000))
        for mix in [Drawer(POLICIES["mix"], 42, rows).mix(id_hash(sample), view)]
    ]


def pixel_vectors() -> list[dict[str, Any]]:
    """Small views of the probe pictures as hex text, row by row: equal within 2 grey levels on average."""
    return [
        {"policy": name, "seed": 42, "view": view, "rgb_16x16": pixels.tobytes().hex()}
        for name, policy in POLICIES.items()
        for view, pixels in enumerate(
            Renderer(policy, 42, PROBES).views(*probe_picture(0), range(6), 16, pictures=probe_picture)
        )
    ]


def build() -> dict[str, Any]:
    """The whole file."""
    return {
        "policies": {name: policy.to_json() for name, policy in POLICIES.items()},
        "words": word_vectors(),
        "draws": draw_vectors(),
        "mixes": mix_vectors(),
        "pixels": pixel_vectors(),
    }


def lines(value: dict[str, Any]) -> str:
    """JSON with one vector a line."""
    sections = []
    for key, section in value.items():
        if isinstance(section, list):
            sections.append(f'"{key}": [\n' + ",\n".join(json.dumps(entry) for entry in section) + "\n]")
        else:
            sections.append(f'"{key}": {json.dumps(section)}')
    return "{\n" + ",\n".join(sections) + "\n}\n"


if __name__ == "__main__":
    GOLDEN.write_text(lines(build()))

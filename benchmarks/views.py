"""What a training view costs, from the file to the batch, beside the pipelines that others have.

    python -m benchmarks.views [--json FILE] [--record]

CPU time of this process, one thread, the pipelines by turns in every 20 images, the median of the paired ratios. 200
photographs of ImageNet at their own sizes (BUTTRESS_DATA), read from files in the page cache; views of 224 px. `rrc`:
random resized crop and flip; `ra`: RandAugment of two ops and random erasing besides. Ours end in a row of a uint8
batch; the others in the float tensor that their loader stacks (collating is not counted), uint8 where said.

timm: `create_transform` bilinear without colour jitter, which costs more. torchvision: v2 on decode_jpeg's tensors.
ml-dr: its file form (all 400 views of an image in one pickled file) and its replay, restated on Pillow. DALI where it
is installed. About 2 minutes.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.ratios import Figure, asked, by_turns, over, told
from benchmarks.store import MLDR_VIEWS, compressed
from benchmarks.trials import data_folder
from buttress.sources import Source, id_hash, open_source
from buttress.sources.packing import PackSettings, pack_source
from buttress.views.draw import RAND_AUGMENT_OPS, Drawer
from buttress.views.policy import Policy
from buttress.views.presets import preset
from buttress.views.render import Renderer

SIZE, CHUNK, ROUNDS, PER_DECODE = 224, 20, 7, 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICIES = {"rrc": preset("crop"), "ra": preset("randaug")}
Way = Callable[[range], int]


class Batch:
    """A row of a batch for each image in turn, as a loader's worker has it."""

    def __init__(self) -> None:
        self.rows = np.empty((CHUNK, SIZE, SIZE, 3), np.uint8)

    def row(self, place: int) -> np.ndarray:
        row: np.ndarray = self.rows[place % CHUNK]
        return row


def ours(source: Source, policy: Policy, *, views: int = 1) -> Way:
    """Views as a training draws them; several from one decode where `views` says so."""
    renderer, batch, hashes = Renderer(policy, 0), Batch(), [id_hash(sample_id) for sample_id in source.ids]
    turn = [0]

    def way(span: range) -> int:
        turn[0] += 1
        for place in span:
            data = source[place].data
            if views == 1:
                renderer.view_into(data, hashes[place], turn[0], batch.row(place))
            else:
                renderer.views(data, hashes[place], range(turn[0], turn[0] + views), SIZE)
        return len(span) * views

    return way


def timms(open_image: Callable[[int], Image.Image], kind: str, *, prefetched: bool = False) -> Way:
    """timm's training transform; `prefetched`: ends in uint8, as for its own prefetcher."""
    from timm.data.transforms_factory import create_transform

    more: dict[str, Any] = {"auto_augment": "rand-m9-n2-mstd0.5", "re_prob": 0.25} if kind == "ra" else {}
    more |= {"color_jitter": None, "interpolation": "bilinear", "use_prefetcher": prefetched}
    transform: Any = create_transform(SIZE, is_training=True, **more)

    def way(span: range) -> int:
        for place in span:
            transform(open_image(place))
        return len(span)

    return way


def torchvisions(paths: list[Path], kind: str) -> Way:
    """torchvision's v2 transforms on tensors."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms import v2

    steps: list[Any] = [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()]
    if kind == "ra":
        steps.append(v2.RandAugment())
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    if kind == "ra":
        steps.append(v2.RandomErasing(0.25))
    transform = v2.Compose(steps)

    def way(span: range) -> int:
        for place in span:
            transform(decode_jpeg(read_file(str(paths[place])), mode=ImageReadMode.RGB))
        return len(span)

    return way


def ml_drs(paths: list[Path], folder: Path, kind: str) -> Way:
    """ml-dr's replay: read all views' parameters of an image, apply one's to the image."""
    from torchvision.transforms import functional
    from torchvision.transforms.autoaugment import _apply_op

    drawer, said = Drawer(POLICIES[kind], 0), [(list(range(10)), [0.1] * 10)] * MLDR_VIEWS
    folder.mkdir()
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            drawn = [drawer.parameters(number, view, image.size) for view in range(MLDR_VIEWS)]
        kept = [{"params": compressed(p), "prob": said[view]} for view, p in enumerate(drawn)]
        torch.save((number, kept), folder / f"{number}.pth.tar", pickle_protocol=4)
    mode = functional.InterpolationMode.BILINEAR
    turn = [0]

    def way(span: range) -> int:
        turn[0] += 1
        for place in span:
            _, views = torch.load(folder / f"{place}.pth.tar", weights_only=False)
            parameters = drawer.parameters(place, turn[0] % MLDR_VIEWS, (500, 375))
            (crop, *boxes), flip, ops = views[turn[0] % MLDR_VIEWS]["params"]
            image: Any = Image.open(paths[place]).convert("RGB")
            left, top, wide, high = (side / SIZE for side in crop)
            (width, height) = image.size
            box = round(top * height), round(left * width), max(round(high * height), 1), max(round(wide * width), 1)
            image = functional.resized_crop(image, *box, [SIZE, SIZE], mode)
            image = functional.hflip(image) if flip else image
            for number, magnitude in ops:
                name = RAND_AUGMENT_OPS[number]
                by = {"TranslateX": SIZE, "TranslateY": SIZE}.get(name, 1)
                whole = name in ("Posterize",)
                image = _apply_op(image, name, int(magnitude) if whole else magnitude * by, mode, None)
            tensor = functional.normalize(functional.to_tensor(image), MEAN, STD)
            for left, top, wide, high in boxes[: len(parameters.erase)]:
                tensor = functional.erase(tensor, top, left, high, wide, torch.zeros(1))
        return len(span)

    return way


def floors(contents: list[bytes]) -> dict[str, Way]:
    """What no pipeline on these files can go below."""
    batch, view = Batch(), np.zeros((SIZE, SIZE, 3), np.uint8)

    def entropy(span: range) -> int:
        for place in span:
            cv2.imdecode(np.frombuffer(contents[place], np.uint8), cv2.IMREAD_REDUCED_COLOR_8)
        return len(span)

    def copied(span: range) -> int:
        for place in span:
            np.copyto(batch.row(place), view)
        return len(span)

    return {"entropy": entropy, "copy": copied}


def ways(work: Path) -> dict[str, Way]:
    """Every pipeline by name."""
    folder = data_folder() / "photos" / "imagenet1k_sample" / "val"
    raw = open_source(f"folder:{folder}")
    pack_source(raw, PackSettings(), work / "packed", workers=0)
    packed = open_source(f"packed:{work / 'packed'}")
    paths = [folder / sample_id for sample_id in raw.ids]

    def of_file(place: int) -> Image.Image:
        return Image.open(paths[place]).convert("RGB")

    def of_packed(place: int) -> Image.Image:
        data = packed[place].data
        assert isinstance(data, bytes)
        return Image.open(io.BytesIO(data)).convert("RGB")

    found: dict[str, Way] = {}
    for kind, policy in POLICIES.items():
        found |= {
            f"raw.{kind}": ours(raw, policy),
            f"packed.{kind}": ours(packed, policy),
            f"timm.{kind}": timms(of_file, kind),
            f"timm_uint8.{kind}": timms(of_file, kind, prefetched=True),
            f"timm_packed.{kind}": timms(of_packed, kind),
            f"torchvision.{kind}": torchvisions(paths, kind),
            f"ml_dr.{kind}": ml_drs(paths, work / f"ml-dr-{kind}", kind),
        }
    found["four.ra"] = ours(raw, POLICIES["ra"], views=PER_DECODE)
    found["four_packed.ra"] = ours(packed, POLICIES["ra"], views=PER_DECODE)
    return found | floors([path.read_bytes() for path in paths])


def figures(us: dict[str, list[float]]) -> list[Figure]:
    """The table's lines."""
    lines: list[Figure] = []

    def add(name: str, ours: str, theirs: str, must: float | None = None, stretch: float | None = None) -> None:
        lines.append(Figure(f"views.{name}", over(us[theirs], us[ours]), "higher", must, stretch))

    add("raw.rrc", "raw.rrc", "timm.rrc", 1.6, 2.2)
    add("raw.ra", "raw.ra", "timm.ra", 1.7, 2.3)
    add("packed.rrc", "packed.rrc", "timm.rrc", 4.0, 5.5)
    add("packed.ra", "packed.ra", "timm.ra", 3.4, 4.5)
    add("packed_same.rrc", "packed.rrc", "timm_packed.rrc", 2.5, 2.8)
    add("packed_same.ra", "packed.ra", "timm_packed.ra", 2.4, 2.6)
    add("four_per_decode", "four.ra", "timm.ra", 4.0)
    add("four_per_decode_packed", "four_packed.ra", "timm.ra")
    for kind in POLICIES:
        for peer in ("timm_uint8", "torchvision", "ml_dr"):
            add(f"raw.{kind} over {peer}", f"raw.{kind}", f"{peer}.{kind}")
    add("floor: entropy decode over timm", "entropy", "timm.rrc")
    add("floor: copy of a view over timm", "copy", "timm.rrc")
    return lines


def main() -> int:
    """Measure, print, and write the figures where asked; returns 1 where a bound does not hold."""
    arguments = asked(__doc__, "views")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        pipelines = ways(Path(temporary))
        images = len(open_source(f"folder:{data_folder() / 'photos' / 'imagenet1k_sample' / 'val'}"))
        us = by_turns(pipelines, images, CHUNK, ROUNDS)
    for name, samples in us.items():
        print(f"{name:20}{np.median(samples):9.1f} us a view")
    return told(figures(us), "views", to=arguments.json, recorded=arguments.record, raw={"us": us})


if __name__ == "__main__":
    sys.exit(main())

"""How fast stored labels are read, beside the reference's way: one pickled file per image, as ml-dr has it.

    python -m benchmarks.store [--json FILE] [--record]

CPU time of this process, warm, the ways interleaved in every repetition; printed are medians and the spread of the
repetitions. The reference (github.com/apple/ml-dr, arXiv 2303.08983) keeps the parameters, class ids and probabilities
of all 400 views of an image in one file (189 bytes a view, here 196) and reads the whole of it for each sample. So does
FKD (arXiv 2112.01528: one file an image, five classes of 500 crops as float32); TinyViT (arXiv 2207.10666) has one file
of fixed records an epoch and replays a view from the seed in it. Both layouts are written here from a description.
kl: nats between what a real teacher (EfficientNet-Lite0, BUTTRESS_DATA) says of views of 200 photographs, its k + 1
masses, and what is read back; also with its logits doubled and quadrupled, the worst of the three. open: a
reinforcement of 512 million views (benchmarks/large_store.py), in fresh processes.

About 90 s. This is the only place of the project that unpickles anything: files that it has just written itself.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import large_store
from benchmarks.ratios import Figure, asked, cpu_us, told
from benchmarks.trials import data_folder
from buttress.store.card import Card, Probes, SourceInfo, settings_digest, standard_fields
from buttress.store.codec import TopKLog8, top_k
from buttress.store.reader import Reinforcement, open_reinforcement
from buttress.store.writer import PartColumns, write_card, write_index, write_part, write_probes
from buttress.views.draw import RAND_AUGMENT_OPS, Drawer, ViewParameters
from buttress.views.presets import preset

K, CLASSES = 10, 1000
ROWS, VIEWS = 20_000, 20
BATCH = 256
MLDR_FILES, MLDR_VIEWS = 100, 400
FKD_FILES, FKD_CROPS, FKD_K = 100, 500, 5
TINYVIT_RECORD = np.dtype([("seed", "<i4"), ("ids", "<i2", K), ("values", "<f2", K)])
TEACHER, KL_VIEWS = "tf_efficientnet_lite0", 4
REPETITIONS = 7
IMAGE_SIZE = (500, 375)
SEED = 0
POLICY = preset("randaug")


def peaked_rows(count: int) -> np.ndarray:
    """Probabilities `[count, C]` of a confident teacher: softmax of normal logits of standard deviation 3."""
    logits = np.random.default_rng(SEED).normal(0, 3, (count, CLASSES))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def write_store(folder: Path) -> Reinforcement:
    """A reinforcement of 20,000 samples x 20 views, k = 10 of 1,000 classes."""
    codec, generator = TopKLog8(K, CLASSES), np.random.default_rng(SEED)
    pool = codec.encode(*top_k(peaked_rows(4_000), K))
    ids = generator.permutation(ROWS).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    settings = large_store.card_settings()
    entry = write_part(
        folder,
        row_block=0,
        first_row=0,
        first_view=0,
        labels_VNS=pool[generator.integers(0, len(pool), (VIEWS, ROWS))],
        columns=PartColumns(id_hashes=ids, hard_labels=np.zeros(ROWS, np.int32), content_hashes=ids | np.uint64(1)),
        settings_digest=settings_digest(**settings),
    )
    write_index(folder, ids)
    card = Card(
        **settings,
        views=VIEWS,
        probes=Probes(sha256=write_probes(folder, np.zeros((16, 64, 64, 3), np.uint8)), versions={}),
        source=SourceInfo(uri="made", count=ROWS, fingerprint="", rows=ROWS),
        fields=standard_fields(K, CLASSES),
        versions={},
        skipped=(),
        parts=(entry,),
    )
    write_card(folder, card)
    return open_reinforcement(folder)


def write_reference(folder: Path) -> list[Path]:
    """A file per image as the reference writes it: pickle protocol 4, its compressed form (numbers in nested lists)."""
    drawer, paths = Drawer(POLICY, SEED), []
    values_BK, ids_BK = top_k(peaked_rows(MLDR_VIEWS), K)
    said = list(zip(ids_BK.tolist(), values_BK.tolist(), strict=True))
    for number in range(MLDR_FILES):
        parameters = [drawer.parameters(number, view, IMAGE_SIZE) for view in range(MLDR_VIEWS)]
        views = [{"params": compressed(p), "prob": said[view]} for view, p in enumerate(parameters)]
        paths.append(folder / f"{number}.pth.tar")
        torch.save((number, views), paths[-1], pickle_protocol=4)
    return paths


def compressed(parameters: ViewParameters) -> list[Any]:
    """A view's parameters as the reference stores them: boxes in whole pixels, ops by number."""
    boxes = [[round(side * 224) for side in box] for box in (parameters.box, *parameters.erase)]
    ops = [[RAND_AUGMENT_OPS.index(name), magnitude] for name, magnitude in parameters.augment]
    return [boxes, parameters.flip, ops]


def write_fkd(folder: Path) -> list[Path]:
    """A file per image in FKD's layout, MS-k5: boxes, flips, and (class, probability) pairs as float32 arrays."""
    generator, paths = np.random.default_rng(SEED), []
    values_MK, ids_MK = top_k(peaked_rows(FKD_CROPS), FKD_K)
    for number in range(FKD_FILES):
        boxes_M4 = generator.random((FKD_CROPS, 4), dtype=np.float32)
        pairs_M2K = np.stack([ids_MK.astype(np.float32), values_MK], axis=1)
        paths.append(folder / f"{number}.tar")
        torch.save([boxes_M4, generator.random(FKD_CROPS) < 0.5, pairs_M2K], paths[-1])
    return paths


def write_tinyvit(folder: Path) -> Path:
    """One epoch of 20,000 records in TinyViT's layout: seed, class ids and float16 probabilities."""
    values_BK, ids_BK = top_k(peaked_rows(4_000), K)
    generator = np.random.default_rng(SEED)
    chosen, records = generator.integers(0, len(values_BK), ROWS), np.empty(ROWS, TINYVIT_RECORD)
    records["seed"] = generator.integers(0, 2**31, ROWS)
    records["ids"], records["values"] = ids_BK[chosen], values_BK[chosen]
    path = folder / "rank0-values.bin"
    path.write_bytes(records.tobytes())
    return path


def measure(reinforcement: Reinforcement, paths: list[Path], fkd_paths: list[Path], tinyvit: Path) -> list[Figure]:
    """Time the ways of reading, interleaved, and make figures of them."""
    generator = np.random.default_rng(SEED)
    rows = generator.integers(0, ROWS, 20 * BATCH)
    views = generator.integers(0, VIEWS, len(rows)).tolist()
    hashes, singles = reinforcement.id_hashes[rows].tolist(), rows.tolist()
    batches = rows.reshape(-1, BATCH)
    drawer = Drawer(POLICY, SEED)

    def one() -> int:
        for row, view, id_hash in zip(singles, views, hashes, strict=True):
            drawer.parameters(id_hash, view, IMAGE_SIZE)
            reinforcement.target(row, view)
        return len(singles)

    def label_only() -> int:
        for row, view in zip(singles, views, strict=True):
            reinforcement.target(row, view)
        return len(singles)

    def batched() -> int:
        for view in range(VIEWS):
            for rows_B in batches:
                reinforcement.targets(rows_B, view)
        return VIEWS * batches.size

    def reference() -> int:
        for number, path in enumerate(paths):
            torch.load(path, weights_only=False)[1][number]
        return len(paths)

    def fkd() -> int:
        for number, path in enumerate(fkd_paths):
            boxes_M4, flips_M, pairs_M2K = torch.load(path, weights_only=False)
            _ = boxes_M4[number], flips_M[number], pairs_M2K[number]
        return len(fkd_paths)

    def tinyvit_record() -> int:
        """Its record, the generator that its view is drawn from, and the rest of the probability."""
        with tinyvit.open("rb") as file:
            for row in singles:
                file.seek(row * TINYVIT_RECORD.itemsize)
                record = np.frombuffer(file.read(TINYVIT_RECORD.itemsize), TINYVIT_RECORD)[0]
                np.random.Generator(np.random.PCG64(record["seed"])).random(16)
                values_K = record["values"].astype(np.float32)
                _ = max(1 - float(values_K.sum()), 0.0) / (CLASSES - K)
        return len(singles)

    ways = (one, label_only, batched, reference, fkd, tinyvit_record)
    gc.collect()
    gc.freeze()  # else the reference pays for walks over all objects of torch: it makes 10,000 containers a file
    for way in ways:
        way()
    times = np.array([[cpu_us(way) for way in ways] for _ in range(REPETITIONS)]).T
    return figures(reinforcement.codec.stride, *times)


def quantisation() -> dict[str, float]:
    """The mean and the 99th percentile of the nats lost, of the worst of three sharpnesses."""
    from buttress.sources import id_hash, open_source
    from buttress.teachers import TeacherSpec
    from buttress.views.render import Renderer

    weights = data_folder() / "weights" / f"{TEACHER}.fp16.safetensors"
    source = open_source(f"folder:{data_folder() / 'photos' / 'imagenet1k_sample' / 'val'}", labels=False)
    renderer, codec, found = Renderer(POLICY, SEED), TopKLog8(K, CLASSES), dict[str, float]()
    teacher = TeacherSpec(uri=f"timm:{TEACHER}@{weights}", classes="teacher", threads=1).open()
    samples = (source[row] for row in range(len(source)))
    said = [
        teacher.probabilities(renderer.views(sample.data, id_hash(sample.id), range(KL_VIEWS), teacher.size))
        for sample in samples
    ]
    for sharper in (1, 2, 4):
        said_BC = np.concatenate(said).astype(np.float64) ** sharper
        said_BC /= said_BC.sum(axis=1, keepdims=True)
        values_BK, ids_BK = top_k(said_BC, K)
        true_BM = np.column_stack([values_BK, np.maximum(1 - values_BK.sum(axis=1, dtype=np.float64), 0)])
        read_BK, _, rest_B = codec.decode(codec.encode(values_BK, ids_BK))
        read_BM = np.column_stack([read_BK, rest_B]).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            lost_B = np.where(true_BM > 0, true_BM * np.log(true_BM / read_BM), 0).sum(axis=1)
        for name, value in (("kl_mean", lost_B.mean()), ("kl_p99", np.quantile(lost_B, 0.99))):
            found[name] = max(found.get(name, 0.0), float(value))
    return found


def figures(
    stride: int,
    one_us: np.ndarray,
    label_us: np.ndarray,
    batch_us: np.ndarray,
    reference_us: np.ndarray,
    fkd_us: np.ndarray,
    tinyvit_us: np.ndarray,
) -> list[Figure]:
    """The table's lines; ratios are of times taken in the same repetition."""

    def value(name: str, samples: np.ndarray, must: float) -> Figure:
        return Figure(f"store.{name}", tuple(samples.tolist()), "lower", must, kind="value")

    def ratio(name: str, samples: np.ndarray, must: float | None = None) -> Figure:
        return Figure(f"store.{name}", tuple(samples.tolist()), "higher", must)

    return [
        value("read_one_us", one_us, 15),
        value("read_batch_us", batch_us, 2),
        ratio("vs_mldr_one", reference_us / one_us, 35),
        ratio("vs_mldr_batch", reference_us / batch_us, 250),
        ratio("vs_fkd_one", fkd_us / one_us),
        ratio("vs_tinyvit_one", tinyvit_us / one_us),
        value("stride", np.array([stride]), 23),
        value("label_one_us", label_us, 12),
    ]


def figures_of_size(opened: dict[str, list[float]], lost: dict[str, float]) -> list[Figure]:
    """Of the large store, and of what quantisation loses."""
    musts = {"open_ms": 50, "open_mb": 100}
    aims = {"kl_mean": (1e-4, 4e-5), "kl_p99": (1e-3, None)}
    return [
        *(Figure(f"store.{name}", (lost[name],), "lower", *aims[name], kind="value") for name in aims),
        *(Figure(f"store.{n}", tuple(told), "lower", musts.get(n), kind="value") for n, told in opened.items()),
    ]


def main() -> int:
    """Measure, print, and write the figures where asked; returns 1 where a bound does not hold."""
    arguments = asked(__doc__, "store")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, name) for name in ("store", "reference", "fkd", "tinyvit", "large")]
        for folder in folders:
            folder.mkdir()
        store, reference, fkd, tinyvit, large = folders
        lines = measure(write_store(store), write_reference(reference), write_fkd(fkd), write_tinyvit(tinyvit))
        lines += figures_of_size(large_store.measure(large), quantisation())
    print(f"k = {K} of {CLASSES} classes, policy randaug; CPU microseconds; median of {REPETITIONS} repetitions")
    print(
        f"read_one: one record with its view's parameters; label_one: without; read_batch: each, in batches of {BATCH}"
    )
    return told(lines, "store", to=arguments.json, recorded=arguments.record, raw={})


if __name__ == "__main__":
    sys.exit(main())

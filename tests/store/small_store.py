"""Small reinforcements for tests, written by the writer itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.store.card import (
    Card,
    PartEntry,
    Probes,
    RendererId,
    SourceInfo,
    settings_digest,
    standard_fields,
    truth_field,
)
from buttress.store.codec import TopKLog8, top_k
from buttress.store.truth import encode_log8
from buttress.store.writer import PartColumns, write_card, write_index, write_part, write_probes
from buttress.views.policy import HorizontalFlip, Policy, RandomResizedCrop

POLICY = Policy((RandomResizedCrop(), HorizontalFlip()))
RENDERER = RendererId(id="opencv-linear", version=1)
LABELLING = {"batch": 4, "precision": "fp32"}
TEACHER = {"uri": "python:teachers:oracle", "size": 32}


def random_probabilities(
    generator: np.random.Generator, rows: int, classes: int, scale: float = 3
) -> NDArray[np.float32]:
    """Softmax of normal logits `[rows, classes]`."""
    exponentials = np.exp(generator.normal(0, scale, (rows, classes)))
    probabilities: NDArray[np.float32] = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def densify(
    values_BK: NDArray[np.float32], ids_BK: NDArray[np.integer], rest_B: NDArray[np.float32], classes: int
) -> NDArray[np.float32]:
    """Distributions `[B, C]`: the rest's mass spread evenly over the classes that are not among the k."""
    others = classes - values_BK.shape[1]
    fill_B = rest_B / others if others else rest_B
    dense_BC = np.repeat(fill_B[:, None], classes, axis=1)
    np.put_along_axis(dense_BC, ids_BK, values_BK, axis=1)
    return dense_BC


def id_hashes_of(rows: int) -> NDArray[np.uint64]:
    """Distinct 64-bit numbers in no order."""
    return np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


class Plan:
    """What is to be stored: labels `[V, N, stride]` and columns, from a seed.

    Args:
        rows, views, k, classes: sizes.
        bad: rows whose image could not be decoded.
        seed: of the numbers.
        truth: whether the hard labels' probabilities are stored too.
    """

    def __init__(
        self,
        rows: int,
        views: int,
        k: int = 3,
        classes: int = 7,
        bad: tuple[int, ...] = (),
        seed: int = 0,
        truth: bool = False,
    ) -> None:
        generator = np.random.default_rng(seed)
        self.rows, self.views, self.k, self.classes, self.bad = rows, views, k, classes, bad
        self.names = tuple(f"class {i}" for i in range(classes))
        self.codec = TopKLog8(k, classes)
        self.probabilities_VNC = random_probabilities(generator, views * rows, classes).reshape(views, rows, classes)
        labels = self.codec.encode(*top_k(self.probabilities_VNC.reshape(-1, classes), k))
        self.labels_VNS = labels.reshape(views, rows, -1)
        self.labels_VNS[:, list(bad)] = 0
        self.id_hashes = id_hashes_of(rows)
        self.hard_labels = generator.integers(-1, classes, rows).astype(np.int32)
        self.content_hashes = generator.integers(1, 2**64, rows, dtype=np.uint64)
        self.content_hashes[list(bad)] = 0
        self.truth_VN = self._truth() if truth else None
        self.fields = (*standard_fields(k, classes), *([truth_field()] if truth else []))
        self.digest = self.card_digest()

    def _truth(self) -> NDArray[np.uint8]:
        """Codes `[V, N]` of the hard labels' probabilities; 0 where there is no label or no image."""
        said_VN = self.probabilities_VNC[:, np.arange(self.rows), np.maximum(self.hard_labels, 0)]
        without_N = (self.hard_labels < 0) | (self.content_hashes == 0)
        return np.where(without_N, 0, encode_log8(said_VN)).astype(np.uint8)

    def card_digest(self) -> str:
        """Digest of the settings, class names among them."""
        return settings_digest(
            seed=5,
            k=self.k,
            classes=self.names,
            policy=POLICY,
            renderer=RENDERER,
            teachers=[TEACHER],
            labelling=LABELLING,
            fields=self.fields,
        )

    def columns(self, first: int, stop: int) -> PartColumns:
        """Columns of some rows."""
        return PartColumns(
            id_hashes=self.id_hashes[first:stop],
            hard_labels=self.hard_labels[first:stop],
            content_hashes=self.content_hashes[first:stop],
        )

    def write_part(self, folder: Path, block: int, rows: tuple[int, int], views: tuple[int, int]) -> PartEntry:
        """Write one rectangle."""
        return write_part(
            folder,
            row_block=block,
            first_row=rows[0],
            first_view=views[0],
            labels_VNS=self.labels_VNS[views[0] : views[1], rows[0] : rows[1]],
            columns=self.columns(*rows) if views[0] == 0 else None,
            settings_digest=self.digest,
            truth_VN=None if self.truth_VN is None else self.truth_VN[views[0] : views[1], rows[0] : rows[1]],
        )

    def card(self, parts: list[PartEntry], probes_sha256: str, rows: int | None = None) -> Card:
        """The card of these parts."""
        return Card(
            seed=5,
            views=max(part.views[1] for part in parts),
            k=self.k,
            classes=self.names,
            policy=POLICY,
            renderer=RENDERER,
            probes=Probes(sha256=probes_sha256, versions={"numpy": "2"}),
            source=SourceInfo(
                uri="folder:photos", count=rows or self.rows, fingerprint="f" * 64, rows=rows or self.rows
            ),
            fields=self.fields,
            teachers=(TEACHER,),
            labelling=LABELLING,
            versions={"numpy": "2"},
            skipped=tuple(f"bad {row}.jpg" for row in self.bad),
            parts=tuple(parts),
        )

    def write(self, folder: Path, row_cuts: tuple[int, ...] = (), view_cuts: tuple[int, ...] = ()) -> Path:
        """Write the whole, with parts cut at these rows and views."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = [
            self.write_part(folder, block, rows, views)
            for block, rows in enumerate(_ranges(self.rows, row_cuts))
            for views in _ranges(self.views, view_cuts)
        ]
        self.finish(folder, parts)
        return folder

    def finish(self, folder: Path, parts: list[PartEntry], rows: int | None = None) -> None:
        """Write index, probes and card."""
        probes = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
        sha256 = write_probes(folder, probes)
        write_index(folder, self.id_hashes[: rows or self.rows])
        write_card(folder, self.card(parts, sha256, rows))


def _ranges(stop: int, cuts: tuple[int, ...]) -> list[tuple[int, int]]:
    edges = [0, *cuts, stop]
    return list(itertools.pairwise(edges))

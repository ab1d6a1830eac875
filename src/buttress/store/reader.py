"""Reading a reinforcement: mapped, lazily, and nothing used that has not been checked.

The card is checked when the folder is opened, a part's JSON and header when the part is first used, a plane's checksum
when the process first reads it. What is not read is not hashed.

Shapes: B rows asked for, N rows stored, K kept classes, S bytes a record.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buttress.errors import StoreError
from buttress.store.card import LABELS, TRUTH, Card, PartEntry
from buttress.store.card_file import read_card
from buttress.store.codec import TopKLog8
from buttress.store.part import Part, damaged, read_part_info
from buttress.store.probes import read_probes
from buttress.store.rows import read_index
from buttress.store.truth import decode_log8, truth_of_targets


def open_reinforcement(path: str | Path) -> Reinforcement:
    """Open a reinforcement; reads its card only.

    Raises:
        StoreError: there is none, or its card is damaged or of another format.
    """
    folder = Path(path)
    return Reinforcement(folder, read_card(folder))


class Reinforcement:
    """What the teacher said about every view of every sample of a source.

    Picklable: it travels as its path and card, and opens its parts again where it arrives.

    Args:
        path: the folder.
        card: what it says of itself.
    """

    def __init__(self, path: Path, card: Card) -> None:
        self.path, self.card = path, card
        self.views, self.k, self.classes = card.views, card.k, card.classes
        self.rows = card.source.count
        self._open_parts: dict[str, Part] = {}
        self._planes: dict[tuple[str, int, int], NDArray[np.uint8]] = {}
        firsts = [part for part in card.parts if part.views[0] == 0]
        self._block_starts = np.array([part.rows[0] for part in firsts], np.int64)
        self._parts_of_block = [[part for part in card.parts if part.row_block == first.row_block] for first in firsts]

    def __reduce__(self) -> tuple[type[Reinforcement], tuple[Path, Card]]:
        return Reinforcement, (self.path, self.card)

    def __repr__(self) -> str:
        return f"Reinforcement({str(self.path)!r}: {self.rows:,} rows x {self.views} views, k={self.k})"

    @cached_property
    def codec(self) -> TopKLog8:
        """How records are read.

        Raises:
            StoreError: this version of buttress does not know the codec of the labels.
        """
        return self.card.label_codec()

    @cached_property
    def _settings(self) -> str:
        return self.card.settings_digest

    @cached_property
    def id_hashes(self) -> NDArray[np.uint64]:
        """Hash of every row's sample id, `[N]` (`buttress.sources.identity.id_hash`)."""
        return self._column("id_hashes")

    @cached_property
    def hard_labels(self) -> NDArray[np.int32]:
        """Class of every row in the source when it was labelled, `[N]`; -1 = none."""
        self.card.field("hard_labels")
        return self._column("hard_labels")

    @cached_property
    def content_hashes(self) -> NDArray[np.uint64]:
        """Hash of every row's image, `[N]`; 0 = it could not be decoded."""
        return self._column("content_hashes")

    @cached_property
    def absent_rows(self) -> NDArray[np.int64]:
        """Rows, ascending, whose image could not be decoded; they have no labels in any view.

        Nor have other rows in the views that are mixed with one of these (`buttress.store.partners`).
        """
        return np.flatnonzero(self.content_hashes == 0)

    def rows_of(self, id_hashes_M: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows `[M]` of the samples with these id hashes; -1 = not in the reinforcement."""
        order_N, sorted_N = self._index
        asked_M = np.asarray(id_hashes_M, np.uint64)
        places_M = np.minimum(np.searchsorted(sorted_N, asked_M), self.rows - 1)
        return np.where(sorted_N[places_M] == asked_M, order_N[places_M].astype(np.int64), -1)

    @cached_property
    def _index(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        order_N = read_index(self.path, self.id_hashes)
        return order_N, self.id_hashes[order_N]

    def records(self, rows_B: NDArray[np.integer], views: int | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Records `[B, stride]`.

        Args:
            rows_B: 0..N-1.
            views: one view number for all, or one per row; 0..V-1.

        Raises:
            IndexError: no such row or view.
            StoreError: what it would read is damaged.
        """
        return self._gathered(LABELS, (self.codec.stride,), rows_B, views)

    def _gathered(
        self, field: str, shape: tuple[int, ...], rows_B: NDArray[np.integer], views: int | NDArray[np.integer]
    ) -> NDArray[np.uint8]:
        """What a field per view holds, `[B, *shape]`."""
        rows_B = np.asarray(rows_B)
        if len(rows_B) and (int(rows_B.min()) < 0 or int(rows_B.max()) >= self.rows):
            raise IndexError(f"rows must lie in 0..{self.rows - 1}, got {rows_B.min()}..{rows_B.max()}")
        if isinstance(views, int | np.integer) and len(self._block_starts) == 1:
            return self._plane(0, int(views), field).take(rows_B, axis=0)
        views_B = np.broadcast_to(np.asarray(views, np.int64), rows_B.shape)
        return self._scattered(field, np.empty((len(rows_B), *shape), np.uint8), rows_B, views_B)

    def _scattered(
        self, field: str, out: NDArray[np.uint8], rows_B: NDArray[np.integer], views_B: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """`out`, filled from several planes, plane by plane."""
        blocks_B = np.searchsorted(self._block_starts, rows_B, side="right") - 1
        pairs, group_B = np.unique(np.stack([blocks_B, views_B]), axis=1, return_inverse=True)
        for group, (block, view) in enumerate(pairs.T.tolist()):
            here = np.flatnonzero(group_B == group)
            out[here] = self._plane(block, view, field).take(rows_B[here] - self._block_starts[block], axis=0)
        return out

    def targets(
        self, rows_B: NDArray[np.integer], views: int | NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        """What the teacher said: probabilities `[B, K]` descending, class ids `[B, K]`, mass of the others `[B]`.

        Args:
            rows_B: 0..N-1, none of `absent_rows`.
            views: one view number for all, or one per row; 0..V-1.

        Raises:
            IndexError: no such row or view.
            StoreError: what it would read is damaged, or a row is absent.
        """
        records_BS = self.records(rows_B, views)
        if len(self.absent_rows):
            self._refuse_any_absent(rows_B, records_BS)
        return self.codec.decode(records_BS)

    def truth(self, rows_B: NDArray[np.integer], views: int | NDArray[np.integer]) -> NDArray[np.float32]:
        """The teacher's probability of each sample's hard label, 0..1, float32 `[B]`; NaN where it has none.

        Where it is stored (`buttress reinforce --truth`) it is right to 2.8 % of itself (from 1e-6). Elsewhere it is
        what the record says of that class: its own value where it is among the k, else an even share of the rest.
        Where the stored classes are the teacher's own and truth is not stored, all is NaN: hard labels are in others.

        Args:
            rows_B: 0..N-1, none of `absent_rows`.
            views: one view number for all, or one per row; 0..V-1.

        Raises:
            IndexError: no such row or view.
            StoreError: what it would read is damaged or of an unknown codec, or a row is absent.
        """
        if not self.card.has_truth:
            labels_B = self._comparable_labels(rows_B)
            return truth_of_targets(*self.targets(rows_B, views), labels_B=labels_B, classes=len(self.classes))
        truth_B = decode_log8(self._gathered(TRUTH, (), rows_B, views))
        if len(self.absent_rows):
            self._refuse_any_absent(rows_B, self.records(rows_B, views))
        return np.where(self.hard_labels[rows_B] >= 0, truth_B, np.float32(np.nan))

    def _comparable_labels(self, rows_B: NDArray[np.integer]) -> NDArray[np.int32]:
        """Hard labels among the stored classes; -1 = none."""
        if self.card.keeps_teachers_classes:
            return np.full(len(rows_B), -1, np.int32)
        labels_B: NDArray[np.int32] = self.hard_labels[rows_B]
        return labels_B

    def target(self, row: int, view: int) -> tuple[list[float], list[int], float]:
        """`targets` of one row, as plain numbers: probabilities, class ids, mass of the others."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} is not in 0..{self.rows - 1}")
        block = 0 if len(self._block_starts) == 1 else int(np.searchsorted(self._block_starts, row, side="right")) - 1
        record = self._plane(block, view, LABELS)[row - int(self._block_starts[block])].tobytes()
        if not any(record):
            self._refuse_absent(row)
        return self.codec.decode_one(record)

    def probes(self) -> NDArray[np.uint8]:
        """The probe views `[P, H, W, 3]` that were drawn when it was made.

        Raises:
            DamageError: not those that the card names.
        """
        return read_probes(self.path, self.card.probes.sha256)

    def part(self, entry: PartEntry) -> Part:
        """The open part of an entry of the card; its JSON and header are checked the first time."""
        part = self._open_parts.get(entry.name)
        if part is None:
            part = self._open_parts[entry.name] = self._open_part(entry)
        return part

    def _open_part(self, entry: PartEntry) -> Part:
        path = self.path / f"{entry.name}.json"
        info, sha256 = read_part_info(self.path, entry.name)
        if sha256 != entry.sha256:
            raise damaged(
                path, entry.name, "file", "not the JSON that the card names (changed, or another labelling's)"
            )
        if (info.rows, info.views, info.settings) != (entry.rows, entry.views, self._settings):
            raise damaged(path, entry.name, "file", "its rows, views or settings are not those of the card")
        return Part(self.path, entry.name, info)

    def _plane(self, block: int, view: int, field: str) -> NDArray[np.uint8]:
        plane = self._planes.get((field, block, view))
        if plane is None:
            plane = self._planes[field, block, view] = self._checked_plane(block, view, field)
        return plane

    def _checked_plane(self, block: int, view: int, field: str) -> NDArray[np.uint8]:
        for entry in self._parts_of_block[block]:
            if entry.views[0] <= view < entry.views[1]:
                part = self.part(entry)
                return part.plane(view, self.codec.stride) if field == LABELS else part.numbers(field, view)
        raise IndexError(f"view {view} is not in 0..{self.views - 1}")

    def _column(self, name: str) -> NDArray[Any]:
        columns = [self.part(parts[0]).column(name) for parts in self._parts_of_block]
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    def _refuse_any_absent(self, rows_B: NDArray[np.integer], records_BS: NDArray[np.uint8]) -> None:
        absent_B = self.codec.absent(records_BS)
        if absent_B.any():
            self._refuse_absent(int(np.asarray(rows_B)[absent_B][0]))

    def _refuse_absent(self, row: int) -> None:
        raise StoreError(
            f"{self.path}: row {row} has no labels, for its image, or the one that the view is mixed with, could not "
            "be decoded when it was labelled; "
            "leave it out (Reinforcement.absent_rows), or mend the image and label anew into another folder"
        )

"""The card of a reinforcement: what the folder holds and how it was made (`reinforcement.json`, written last)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from buttress.errors import StoreError
from buttress.files import json_bytes
from buttress.store.codec import CODEC, CODEC_VERSION, TopKLog8
from buttress.store.truth import LOG_CODEC, LOG_CODEC_VERSION
from buttress.views.policy import Policy

FORMAT: Final = "buttress-reinforcement"
FORMAT_VERSION: Final = 1
LABELS: Final = "labels"
HARD_LABELS: Final = "hard_labels"
TRUTH: Final = "truth"


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One kind of thing that is stored.

    Args:
        name: name of its tensor in the parts.
        codec: how a record is read, such as "topk-log8"; "plain" = an array element.
        version: of the codec.
        dtype: "uint8", "int32" or "uint64".
        shape: of one record; () = one number.
        per: "view" or "sample".
        teacher: index into the card's teachers (of an ensemble, its first), none where no teacher said it.
    """

    name: str
    codec: str
    version: int
    dtype: str
    shape: tuple[int, ...]
    per: str
    teacher: int | None = None


def standard_fields(k: int, classes: int) -> tuple[Field, Field]:
    """The fields of a reinforcement: the teacher's labels per view, the source's hard label per sample (-1 = none)."""
    codec = TopKLog8(k, classes)
    return (
        Field(
            name=LABELS, codec=CODEC, version=CODEC_VERSION, dtype="uint8", shape=(codec.stride,), per="view", teacher=0
        ),
        Field(name=HARD_LABELS, codec="plain", version=1, dtype="int32", shape=(), per="sample"),
    )


def truth_field() -> Field:
    """The teacher's probability of each sample's hard label, per view: stored where it was asked for."""
    return Field(name=TRUTH, codec=LOG_CODEC, version=LOG_CODEC_VERSION, dtype="uint8", shape=(), per="view", teacher=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RendererId:
    """Which renderer drew the teacher's views."""

    id: str
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes:
    """The probe views: SHA-256 of their file, and the versions of the libraries that drew them."""

    sha256: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """What was labelled.

    Args:
        uri: where it lay.
        count: samples in it (= rows stored).
        fingerprint: digest over its ids in order.
        rows: M, samples at the first labelling; mixing partners are drawn below it.
    """

    uri: str
    count: int
    fingerprint: str
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PartEntry:
    """One part: the rectangle rows x views (half-open) that it holds, and the SHA-256 of its JSON."""

    name: str
    rows: tuple[int, int]
    views: tuple[int, int]
    sha256: str

    @property
    def row_block(self) -> int:
        """Ordinal of its block of rows."""
        return int(self.name[5:10])


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Everything about a reinforcement but its numbers. The same inputs give the same card: it holds no times.

    Args:
        seed: of the views.
        views: V.
        k: classes kept per view.
        classes: names, C of them.
        policy: the augmentation in full.
        renderer, probes, source: see there.
        fields: what is stored.
        teachers: what each teacher said of itself; several are one ensemble, and each has its `weight`.
        labelling: settings that cut the teacher's batches (precision, batch, threads, ...).
        versions: of the libraries at the last labelling.
        skipped: ids whose image could not be decoded; their records are absent.
        parts: in order of row block and first view; together they hold every row and view once.

    Raises:
        StoreError: it contradicts itself.
    """

    seed: int
    views: int
    k: int
    classes: tuple[str, ...]
    policy: Policy
    renderer: RendererId
    probes: Probes
    source: SourceInfo
    fields: tuple[Field, ...]
    teachers: tuple[Mapping[str, Any], ...]
    labelling: Mapping[str, Any]
    versions: Mapping[str, str]
    skipped: tuple[str, ...]
    parts: tuple[PartEntry, ...]

    def __post_init__(self) -> None:
        TopKLog8(self.k, len(self.classes))
        if len(set(self.classes)) != len(self.classes):
            raise StoreError("classes: a name stands twice")
        if len({field.name for field in self.fields}) != len(self.fields):
            raise StoreError("fields: a name stands twice")
        if not 1 <= self.source.rows <= self.source.count:
            raise StoreError(f"source: M = {self.source.rows} of {self.source.count} samples")
        _check_cover(self.parts, self.source.count, self.views)

    @property
    def settings_digest(self) -> str:
        """Digest of what decides the bytes of a part; every part of the folder carries it."""
        return settings_digest(
            seed=self.seed,
            k=self.k,
            classes=self.classes,
            policy=self.policy,
            renderer=self.renderer,
            teachers=self.teachers,
            labelling=self.labelling,
            fields=self.fields,
        )

    @property
    def keeps_teachers_classes(self) -> bool:
        """Whether the classes were asked of the teacher (`--classes teacher`), and may not be the source's."""
        return any(teacher.get("classes") == "teacher" for teacher in self.teachers)

    @property
    def has_truth(self) -> bool:
        """Whether the probability of the hard label is stored.

        Raises:
            StoreError: it is, and its codec is not known to this version of buttress.
        """
        stored = next((field for field in self.fields if field.name == TRUTH), None)
        if stored is not None and stored != truth_field():
            known = f"{LOG_CODEC!r} version {LOG_CODEC_VERSION}, one byte per view"
            raise StoreError(
                f"the field {TRUTH!r} has codec {stored.codec!r} version {stored.version} (shape {stored.shape} per "
                f"{stored.per}); this version of buttress reads {known}: install a newer buttress"
            )
        return stored is not None

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises:
            StoreError: there is none.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise StoreError(f"no field {name!r} is stored; there are {', '.join(field.name for field in self.fields)}")

    def label_codec(self) -> TopKLog8:
        """The codec of the labels.

        Raises:
            StoreError: it is not known to this version of buttress.
        """
        field, codec = self.field(LABELS), TopKLog8(self.k, len(self.classes))
        if (field.codec, field.version) != (CODEC, CODEC_VERSION):
            raise StoreError(
                f"the field {field.name!r} has codec {field.codec!r} version {field.version}; this version of buttress "
                f"reads {CODEC!r} version {CODEC_VERSION}: install a newer buttress"
            )
        if (field.dtype, field.shape, field.per) != ("uint8", (codec.stride,), "view"):
            raise StoreError(f"the field {field.name!r} is not of uint8 records of {codec.stride} bytes per view")
        return codec

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values, its own digest among them."""
        body = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "seed": self.seed,
            "views": self.views,
            "k": self.k,
            "classes": list(self.classes),
            "policy": self.policy.to_json(),
            "renderer": asdict(self.renderer),
            "probes": {"sha256": self.probes.sha256, "versions": dict(self.probes.versions)},
            "source": asdict(self.source),
            "fields": [{**asdict(field), "shape": list(field.shape)} for field in self.fields],
            "teachers": [dict(teacher) for teacher in self.teachers],
            "labelling": dict(self.labelling),
            "versions": dict(self.versions),
            "skipped": list(self.skipped),
            "parts": [
                {"name": part.name, "rows": list(part.rows), "views": list(part.views), "sha256": part.sha256}
                for part in self.parts
            ],
        }
        return {**body, "digest": json_digest(body)}


def settings_digest(
    *,
    seed: int,
    k: int,
    classes: Sequence[str],
    policy: Policy,
    renderer: RendererId,
    teachers: Sequence[Mapping[str, Any]],
    labelling: Mapping[str, Any],
    fields: Sequence[Field] = (),
) -> str:
    """SHA-256 of the settings that decide the bytes of a part, in hex. Parts of another digest are not ours.

    Of the fields only `truth` is in it, where it is stored: the others are in every part, or in none of ours.
    Not in it: how many rows and views there are (more may be appended), where source and weights lie, and versions.
    """
    said = [
        {key: value for key, value in teacher.items() if key != "uri" or not teacher.get("weights_sha256")}
        for teacher in teachers
    ]
    settings: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "codec": [CODEC, CODEC_VERSION],
        "seed": seed,
        "k": k,
        "classes": list(classes),
        "policy": policy.to_json(),
        "renderer": asdict(renderer),
        "teachers": said,
        "labelling": dict(labelling),
    }
    if truth := [[field.name, field.codec, field.version] for field in fields if field.name == TRUTH]:
        settings["fields"] = truth
    return json_digest(settings)


def _check_cover(parts: Sequence[PartEntry], rows: int, views: int) -> None:
    """The parts, in order, hold rows 0..rows x views 0..views, each once."""
    row = view = row_block = 0
    span = (0, 0)
    for part in parts:
        if view == 0:
            span = part.rows
        if part.row_block != row_block or part.rows != span or span[0] != row or part.views[0] != view:
            raise StoreError(
                f"parts: {part.name} is not the next one; rows {row} of view {view} are missing or doubled"
            )
        view = part.views[1]
        if view == views:
            row, view, row_block = span[1], 0, row_block + 1
    if (row, view) != (rows, 0):
        raise StoreError(f"parts: they hold {row} of {rows} rows in {views} views")


def json_digest(value: Any) -> str:
    """SHA-256 of canonical JSON (sorted keys, one space of indent, newline at the end), in hex."""
    return hashlib.sha256(json_bytes(value)).hexdigest()

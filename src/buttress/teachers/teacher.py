"""What a teacher is, and how to name one so that any process can open it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from buttress.errors import SettingsError
from buttress.models.uri import parse_model_uri

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from buttress.models.load import LoadedModel

Precision = Literal["auto", "fp32", "bf16"]
ClassesMode = Literal["source", "teacher"]
Forward = Literal["auto", "channels_last", "contiguous", "channels_last+compiled", "contiguous+compiled"]
COMPILED_BATCH = 32  # views: a compiled network sees batches of this size alone, so that one kernel serves all
COMPILED: dict[Forward, Forward] = {"channels_last": "channels_last+compiled", "contiguous": "contiguous+compiled"}


class Teacher(Protocol):
    """uint8 views -> class probabilities.

    spec: opens this very teacher again, with `size`, `precision` and `threads` settled.
    size: height and width of the views it wants. classes: names in the order of its outputs, None if not known.
    unmapped_share: mean probability, over the views seen so far, that fell on classes outside the class map.
    """

    @property
    def spec(self) -> TeacherSpec: ...
    @property
    def size(self) -> int: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def unmapped_share(self) -> float: ...

    def probabilities(self, views_BHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities [B, C] of uint8 RGB views; a row does not depend on the rest of the batch."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the card says of it: plain JSON, the same on every call, no folders of this machine."""
        ...


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """How to open a teacher; small and picklable, so that workers open their own.

    uri: `timm:NAME`, `timm:NAME@FILE`, `run:DIR` or `python:pkg.mod:func`.
    size: pixels of the views it sees; None = its own. temperature: above 0, divides the logits.
    classes: `source` cuts its outputs to the source's classes, `teacher` keeps its own.
    source_classes: the source's class names, None where it has none.
    class_map: YAML file, or what it holds: source class -> the teacher's.
    precision: `auto` takes bf16 where the machine computes it natively. threads: of torch; None = torch's choice.
    forward: memory format of a network, and whether torch.compile makes it; `auto` = channels_last, or what
        `forward.settled` measures.
    """

    uri: str
    size: int | None = None
    temperature: float = 1.0
    classes: ClassesMode = "source"
    source_classes: tuple[str, ...] | None = None
    class_map: Path | Mapping[str, Sequence[str | int]] | None = None
    precision: Precision = "auto"
    threads: int | None = None
    forward: Forward = "auto"

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise SettingsError(f"teacher size {self.size}: must be at least 1 pixel")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise SettingsError(f"temperature {self.temperature}: must be a finite number above 0")
        if self.classes not in ("source", "teacher"):
            raise SettingsError(f"classes {self.classes!r}: must be source or teacher")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise SettingsError(f"precision {self.precision!r}: must be auto, fp32 or bf16")
        if self.forward not in get_args(Forward):
            raise SettingsError(f"forward {self.forward!r}: must be one of {', '.join(get_args(Forward))}")
        if self.threads is not None and self.threads < 1:
            raise SettingsError(f"threads {self.threads}: must be at least 1")
        if self.class_map is not None and self.classes == "teacher":
            raise SettingsError("a class map has no use with --classes teacher; leave one of the two out")

    @property
    def kept_classes(self) -> ClassesMode:
        """Whose classes it ends in: of a source without any, the teacher's own, whatever was asked for."""
        unnamed = self.source_classes is None and self.class_map is None
        return "teacher" if unnamed else self.classes

    def open(self) -> Teacher:
        """Open the teacher in this process.

        Raises: ModelError, where it cannot be opened, has no weights, or its classes do not fit the source's.
        """
        if parse_model_uri(self.uri).scheme == "python":
            from buttress.teachers.python_teacher import PythonTeacher

            return PythonTeacher(self)
        from buttress.teachers.network import NetworkTeacher

        return NetworkTeacher(self, self.load())

    def load(self) -> LoadedModel:
        """The model of a teacher that is a network.

        Raises: ModelError, where it cannot be loaded, or has no weights.
        """
        from buttress.runs.resolve import resolve_model

        loaded = resolve_model(self.uri, pretrained=True if parse_model_uri(self.uri).path is None else None)
        assert loaded.pretrained
        return loaded


def open_teacher(
    uri: str,
    *,
    size: int | None = None,
    temperature: float = 1.0,
    classes: ClassesMode = "source",
    source_classes: tuple[str, ...] | None = None,
    class_map: Path | None = None,
    precision: Precision = "auto",
    threads: int | None = None,
) -> Teacher:
    """Open a teacher; the arguments are those of `TeacherSpec`."""
    return TeacherSpec(
        uri=uri,
        size=size,
        temperature=temperature,
        classes=classes,
        source_classes=source_classes,
        class_map=class_map,
        precision=precision,
        threads=threads,
    ).open()

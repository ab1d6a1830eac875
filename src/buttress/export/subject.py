"""What is exported: a run at a level. And the one new file that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from buttress.errors import SettingsError
from buttress.export.agreement import MATERIALISED, ROUNDED, TOLERANCE, require_agreement
from buttress.files import require_writable, write_atomic
from buttress.models.load import LoadedModel
from buttress.models.packed import Entry
from buttress.models.uri import parse_model_uri
from buttress.runs.resolve import resolve_run
from buttress.runs.run import Run
from buttress.weights.levels import Level, move

INPUT = "images: float32 [batch, 3, {size}, {size}], RGB, (pixel / 255 - mean) / std"
OUTPUT = "logits: float32 [batch, {classes}]; a softmax gives probabilities"


@dataclass(frozen=True, slots=True)
class Subject:
    """A finished run, at a level where it is elastic.

    level: one that was asked for; none of a run without levels, or where none was asked for yet.
    """

    run: Run
    level: Level | None

    @classmethod
    def of(cls, uri: str, level: str | None = None) -> Subject:
        """By a run's folder, `run:DIR` or `run:DIR@LEVEL`, and the level of a flag.

        Raises:
            ModelError: there is no such finished run.
            SettingsError: two levels, or one that the run does not have.
        """
        run, named = resolve_run(uri), parse_model_uri(uri).level
        asked = [Level.parse(text) for text in (named, level) if text is not None]
        if len(asked) == 2 and asked[0] != asked[1]:
            raise SettingsError(f"--level {level}: but {uri} names {named}; give one of them")
        if asked and not run.levels():
            raise SettingsError(f"level {asked[0]}: {run.path} has no levels; leave it out")
        if asked and asked[0].kind not in {known.kind for known in run.levels()}:
            raise SettingsError(f"level {asked[0]}: {run.path} has others: {_list(run.levels())}")
        return cls(run, asked[0] if asked else None)

    def require_level(self) -> None:
        """Raises: SettingsError, where the run serves at many levels and none was asked for."""
        if self.level is None and (levels := self.run.levels()):
            raise SettingsError(f"{self.run.path}: is elastic; name a --level, such as {_list(levels)}")

    @property
    def tolerance(self) -> float:
        """How far logits of an export may be off, as a share of the largest."""
        return ROUNDED if self.level is not None and self.level.kind == "bits" else TOLERANCE

    def load(self) -> LoadedModel:
        """The plain network in hand, whose logits are those of the compressed or elastic one.

        Raises: SettingsError, ModelError, where it has no such level, or the two differ.
        """
        self.require_level()
        loaded = self.run.load_model(self.level)
        if self.run.methods and (self.level is None or len(self.level.points) == 1):
            prepared, _ = self.run.load_prepared()
            if self.level is not None:
                move(prepared.module, self.level)
            size = loaded.preprocessing.size
            exact = self.level is None or self.level.kind in (
                "at",
                "keep",
            )  # else inputs are rounded, or kernels others
            tolerance = MATERIALISED if exact else self.tolerance
            advice = "report the method and the architecture"
            require_agreement(prepared.module, loaded.module.eval(), size, "the plain network", tolerance, advice)
        return loaded

    def entries(self) -> dict[str, Entry]:
        """Of a compressed run: the state dict of that network as a packed file stores it.

        Raises: SettingsError, ModelError, where it has no such level, or one of several points.
        """
        self.require_level()
        loaded, methods = self.run.load_prepared()
        if self.level is not None:
            move(loaded.module, self.level)
        return methods[-1].packed(loaded.module)

    def metadata(self, loaded: LoadedModel) -> dict[str, str]:
        """What a file says of it, texts by name."""
        size, classes = loaded.preprocessing.size, loaded.num_classes
        said = {"input": INPUT.format(size=size), "output": OUTPUT.format(classes=classes), **self.run.metadata()}
        return said if self.level is None else {**said, "level": str(self.level)}


def require_new_file(out: Path, suffix: str) -> None:
    """Notice before the work that a file cannot be written.

    Raises: SettingsError, where it exists, has another ending, or its folder cannot be written to.
    """
    if out.suffix != suffix:
        raise SettingsError(f"--out {out}: such a file is named *{suffix}")
    if out.exists():
        raise SettingsError(f"--out {out}: exists already; name a new file")
    require_writable(out)


def write_new_file(out: Path, data: bytes) -> None:
    """Write a file, whole or not at all, and the folders above it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, data)


def _list(levels: tuple[Level, ...]) -> str:
    return ", ".join(map(str, levels))

"""The names that `timm:` takes, with what timm says of each: from a table, for importing timm takes seconds.

The table `timm.tsv` holds for one version of timm; with another one installed timm itself is asked.
`python -m buttress.models.catalogue` writes it anew.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from buttress.errors import ModelError
from buttress.files import write_atomic
from buttress.nearest import did_you_mean, nearest

TABLE = "timm.tsv"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that `timm:NAME` names.

    Args:
        name: the architecture, and the tag of its weights where timm has some.
        classes: outputs of its head; 0 = it gives features only.
        size: input in pixels, "224" or "1024x768" (height x width).
        licence: of the weights as timm says it, else "unknown"; "-" = it has no weights.
    """

    name: str
    classes: int
    size: str
    licence: str

    @property
    def architecture(self) -> str:
        """The name without the tag."""
        return self.name.partition(".")[0]


def find_models(pattern: str = "*") -> list[ModelEntry]:
    """The models whose name, or name without the tag, matches the glob `pattern`, in timm's order.

    Raises: ModelError where none does, with the nearest names.
    """
    entries = catalogue()
    found = [one for one in entries if fnmatchcase(one.name, pattern) or fnmatchcase(one.architecture, pattern)]
    if not found:
        known = list(dict.fromkeys(one.architecture for one in entries))
        raise ModelError(f"no timm model matches {pattern!r}{_hint(pattern, known)}")
    return found


def _hint(pattern: str, architectures: list[str]) -> str:
    plain = pattern.strip("*")
    if not any(letter in pattern for letter in "*?[") and (inside := [one for one in architectures if plain in one]):
        return f"; did you mean '*{plain}*' ({len(inside)} architectures, e.g. {inside[0]})?"
    bare = plain.partition(".")[0]
    return did_you_mean(bare, architectures, count=3) if nearest(bare, architectures) else ""


def catalogue() -> list[ModelEntry]:
    """Every model: one entry per tag of weights, and the architectures that have none."""
    head, *lines = (files("buttress.models") / TABLE).read_text(encoding="utf-8").splitlines()
    if head != _head():
        return ask_timm()
    rows = (line.split("\t") for line in lines)
    return [ModelEntry(name, int(classes), size, licence) for name, classes, size, licence in rows]


def ask_timm() -> list[ModelEntry]:
    """`catalogue`, by importing timm."""
    import timm

    weights: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        weights.setdefault(name.partition(".")[0], []).append(name)
    return [_entry(name) for architecture in timm.list_models() for name in weights.get(architecture, [architecture])]


def _entry(name: str) -> ModelEntry:
    from timm.models import get_pretrained_cfg, is_model_pretrained

    config = get_pretrained_cfg(name)
    assert config is not None, name
    _, height, width = config.input_size
    licence = (config.license or "unknown") if is_model_pretrained(name) else "-"
    return ModelEntry(name, config.num_classes, str(height) if height == width else f"{height}x{width}", licence)


def _head() -> str:
    return f"# timm {version('timm')}"


def _write_table() -> None:
    lines = [_head(), *("\t".join(map(str, astuple(entry))) for entry in ask_timm())]
    write_atomic(Path(__file__).with_name(TABLE), ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    _write_table()

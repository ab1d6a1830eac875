"""Model URIs: `timm:NAME`, `timm:NAME@FILE.safetensors`, `run:DIR`, `run:DIR@LEVEL`, `python:pkg.mod:func`."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import isdir  # of a name that no system takes it says no, where Path's raises
from pathlib import Path
from typing import Literal, cast

from buttress.errors import ModelError
from buttress.nearest import did_you_mean

Scheme = Literal["timm", "run", "python"]
SCHEMES: tuple[Scheme, ...] = ("timm", "run", "python")
_FORMS = "timm:NAME, timm:NAME@FILE.safetensors, run:DIR or python:pkg.mod:func"
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelURI:
    """A parsed model URI.

    scheme: `timm`, `run` or `python`.
    name: timm's model name (with its tag, if given), the run folder's own name, or `pkg.mod:func`.
    path: the weights file of `timm:NAME@FILE`, the folder of `run:DIR`, else None.
    level: of `run:DIR@LEVEL`, as it is written (`keep=0.25`), else None.
    """

    scheme: Scheme
    name: str
    path: Path | None = None
    level: str | None = None

    @property
    def public(self) -> str:
        """The URI without folders, fit for a card that travels to other machines."""
        if self.scheme == "timm" and self.path is not None:
            return f"timm:{self.name}@{self.path.name}"
        if self.level is not None:
            return f"run:{self.name}@{self.level}"
        return f"{self.scheme}:{self.name}"


def parse_model_uri(text: str) -> ModelURI:
    """Parse a model URI; an existing folder without a scheme is taken as a run.

    Raises: ModelError, for an unknown scheme or a malformed name, with the nearest form that would do.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or "/" in scheme or "@" in scheme:
        return _without_scheme(text)
    if scheme not in SCHEMES:
        raise ModelError(f"{text}: unknown model scheme {scheme!r}{did_you_mean(scheme, SCHEMES)}; use {_FORMS}")
    if not rest:
        raise ModelError(f"{text}: nothing after {scheme}:; use {_FORMS}")
    if scheme == "timm":
        return _timm(text, rest)
    if scheme == "run":
        return _run(rest)
    module, _, function = rest.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise ModelError(f"{text}: not python:pkg.mod:func (a module that can be imported, then the function's name)")
    return ModelURI(scheme=cast(Scheme, scheme), name=rest)


def _timm(text: str, rest: str) -> ModelURI:
    name, at, file = rest.partition("@")
    if _looks_like_file(name):
        raise ModelError(f"{text}: {name} is a file, not a timm model; did you mean timm:NAME@{name}?")
    if not name or (at and not file):
        raise ModelError(f"{text}: use timm:NAME or timm:NAME@FILE.safetensors")
    return ModelURI(scheme="timm", name=name, path=Path(file) if at else None)


def split_level(text: str) -> tuple[Path, str | None]:
    """The folder and the level of `DIR@LEVEL`; none where it names no level."""
    folder, _, level = text.rpartition("@")
    if not folder or "=" not in level or isdir(text):  # a folder may be called so
        return Path(text), None
    return Path(folder), level


def _run(text: str) -> ModelURI:
    path, level = split_level(text)
    return ModelURI(scheme="run", name=path.name or path.resolve().name, path=path, level=level)


def _without_scheme(text: str) -> ModelURI:
    run = _run(text) if text else None
    if run is not None and run.path is not None and run.path.is_dir():
        return run
    if _looks_like_file(text):
        raise ModelError(f"{text}: looks like a file; did you mean timm:NAME@{text}? (NAME is its timm architecture)")
    if "/" in text or not text:
        raise ModelError(f"{text or 'an empty text'}: no such run folder and no model URI; use {_FORMS}")
    raise ModelError(f"{text}: no scheme; did you mean timm:{text}? Use {_FORMS}")


def _looks_like_file(name: str) -> bool:
    return name.endswith(_WEIGHT_SUFFIXES)

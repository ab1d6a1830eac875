"""Any URI of a network, `timm:` or `run:`, to the model in hand."""

from __future__ import annotations

from pathlib import Path

from buttress.errors import ModelError
from buttress.models.load import LoadedModel, load_model, with_head
from buttress.models.uri import parse_model_uri
from buttress.runs.run import WEIGHTS, Run, open_run
from buttress.weights.levels import Level


def resolve_model(
    uri: str,
    *,
    num_classes: int | None = None,
    pretrained: bool | None = None,
    seed: int | None = None,
    measured: bool = False,
) -> LoadedModel:
    """Load a `timm:` model (see `load_model`) or the model of a run; a run folder's bare path will do.

    num_classes: outputs wanted; a model with another number gets a new head.
    measured: of a compressed run, also what its weights take when they are packed.

    Raises:
        ModelError: there is no such model, it is no network (`python:`), or it is compressed and another head is asked.
        SettingsError: the level of an elastic run (`run:DIR@keep=0.25`) is not one of its.
    """
    parsed = parse_model_uri(uri)
    if parsed.scheme == "python":
        raise ModelError(f"{uri}: a function can teach but not be trained or evaluated; use timm: or run:")
    if parsed.scheme == "timm":
        return load_model(uri, num_classes=num_classes, pretrained=pretrained, seed=seed)
    run = resolve_run(uri)
    if run.methods and num_classes is not None:
        raise ModelError(f"{uri}: is compressed, and trains no further; train a plain model, then compress it")
    level = None if parsed.level is None else Level.parse(parsed.level)
    return with_head(run.load_model(level, measured=measured), num_classes)


def weights_file(uri: str) -> Path | None:
    """The file with the weights of a model; None where they are not in one of ours (timm's own cache)."""
    parsed = parse_model_uri(uri)
    return parsed.path / WEIGHTS if parsed.scheme == "run" and parsed.path is not None else parsed.path


def levels_of(uri: str) -> tuple[Level, ...]:
    """The levels that a model is scored at: the one that its URI names, or all of an elastic run, the default first.

    None of a model without levels.

    Raises: ModelError, SettingsError, as `resolve_model`.
    """
    parsed = parse_model_uri(uri)
    if parsed.scheme != "run":
        return ()
    run = resolve_run(uri)
    return run.levels() if parsed.level is None else (Level.parse(parsed.level),)


def resolve_run(uri: str) -> Run:
    """The finished run that `uri` names, `run:DIR` or the bare path; a level behind it is for the caller to heed.

    Raises: ModelError, where it is another model, there is no finished run, or a level is named and it has none.
    """
    parsed = parse_model_uri(uri)
    if parsed.scheme != "run" or parsed.path is None:
        raise ModelError(f"{uri}: only a run will do here; give the --out of a `buttress train`")
    run = open_run(parsed.path)
    if parsed.level is not None and not run.methods:
        raise ModelError(f"{uri}: this run has no levels; name it by {parsed.path}")
    return run

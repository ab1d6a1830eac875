"""Any URI of a network, `timm:` or `run:`, to the model in hand."""

from __future__ import annotations

from pathlib import Path

from buttress.errors import ModelError
from buttress.models.load import LoadedModel, load_model, with_head
from buttress.models.uri import parse_model_uri
from buttress.runs.run import WEIGHTS, Run, open_run


def resolve_model(
    uri: str, *, num_classes: int | None = None, pretrained: bool | None = None, seed: int | None = None
) -> LoadedModel:
    """Load a `timm:` model (see `load_model`) or the model of a run; a run folder's bare path will do.

    num_classes: outputs wanted; a model with another number gets a new head.

    Raises: ModelError, where there is no such model or it is no network (`python:`).
    """
    parsed = parse_model_uri(uri)
    if parsed.scheme == "python":
        raise ModelError(f"{uri}: a function can teach but not be trained or evaluated; use timm: or run:")
    if parsed.scheme == "timm":
        return load_model(uri, num_classes=num_classes, pretrained=pretrained, seed=seed)
    return with_head(resolve_run(uri).load_model(), num_classes)


def weights_file(uri: str) -> Path | None:
    """The file with the weights of a model; None where they are not in one of ours (timm's own cache)."""
    parsed = parse_model_uri(uri)
    return parsed.path / WEIGHTS if parsed.scheme == "run" and parsed.path is not None else parsed.path


def resolve_run(uri: str) -> Run:
    """The finished run that `uri` names, `run:DIR` or the bare path.

    Raises: ModelError, where it is another model or there is no finished run.
    """
    parsed = parse_model_uri(uri)
    if parsed.scheme != "run" or parsed.path is None:
        raise ModelError(f"{uri}: only a run will do here; give the --out of a `buttress train`")
    return open_run(parsed.path)

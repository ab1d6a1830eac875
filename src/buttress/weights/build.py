"""Methods by name, and as a run's card tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from buttress.errors import ModelError, SettingsError
from buttress.weights.settings import DkmSettings, LcsSettings, MethodName, MethodSettings, SubspaceSettings

if TYPE_CHECKING:
    from buttress.weights.method import CompressionMethod

SETTINGS: dict[MethodName, type[MethodSettings]] = {
    "subspace": SubspaceSettings,
    "lcs": LcsSettings,
    "dkm": DkmSettings,
}


def create_method(settings: MethodSettings, *, pretrained: bool = False) -> CompressionMethod:
    """The method that these are the settings of.

    pretrained: it is to act on trained weights, not on a random init.
    """
    if isinstance(settings, SubspaceSettings):
        from buttress.weights.subspace import Subspace

        return Subspace(settings, pretrained=pretrained)
    if isinstance(settings, LcsSettings):
        from buttress.weights.lcs import Lcs

        return Lcs(settings, pretrained=pretrained)
    from buttress.weights.dkm import Dkm

    return Dkm(settings)


def method_name(settings: MethodSettings) -> MethodName:
    """The method's name by its settings."""
    return next(name for name, made_of in SETTINGS.items() if isinstance(settings, made_of))


def to_card(settings: MethodSettings) -> dict[str, Any]:
    """What a run's card says of a method."""
    return {"name": method_name(settings), "settings": asdict(settings)}


def from_card(told: Mapping[str, Any], place: str) -> CompressionMethod:
    """The method that a card tells of.

    place: the card's name, for errors.

    Raises: ModelError, where it is none that this version knows.
    """
    name, values = told.get("name"), told.get("settings")
    made_of = next((made_of for known, made_of in SETTINGS.items() if known == name), None)
    if made_of is None:
        raise ModelError(f"{place}: no method {name!r} is known here; update Buttress")
    if not isinstance(values, dict):
        raise ModelError(f"{place}: method {name} without its settings; the file was changed by hand")
    try:
        return create_method(made_of(**values))
    except (TypeError, SettingsError) as failure:
        raise ModelError(f"{place}: method {name}: {' '.join(str(failure).split())}") from failure

"""Methods by name, and as a run's card tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from buttress.errors import ModelError, SettingsError
from buttress.weights.settings import DkmSettings, LcsSettings, MethodName, MethodSettings, SubspaceSettings

if TYPE_CHECKING:
    from buttress.weights.method import CompressionMethod

SETTINGS: dict[MethodName, type[MethodSettings]] = {
    "subspace": SubspaceSettings,
    "lcs": LcsSettings,
    "dkm": DkmSettings,
}


def create_method(settings: MethodSettings, *, pretrained: bool = False, size: int | None = None) -> CompressionMethod:
    """The method that these are the settings of.

    pretrained: it is to act on trained weights, not on a random init.
    size: of the model's images, pixels; none = the architecture's own.
    """
    if isinstance(settings, SubspaceSettings):
        from buttress.weights.subspace import Subspace

        return Subspace(settings, pretrained=pretrained)
    if isinstance(settings, LcsSettings):
        from buttress.weights.lcs import Lcs

        return Lcs(settings, pretrained=pretrained, size=size)
    from buttress.weights.dkm import Dkm

    return Dkm(settings)


def method_name(settings: MethodSettings) -> MethodName:
    """The method's name by its settings."""
    return next(name for name, made_of in SETTINGS.items() if isinstance(settings, made_of))


def to_card(settings: MethodSettings) -> dict[str, Any]:
    """What a run's card says of a method."""
    return {"name": method_name(settings), "settings": asdict(settings)}


def from_card(told: Mapping[str, Any], place: str, size: int) -> CompressionMethod:
    """The method that a card tells of.

    place: the card's name, for errors. size: of the model's images, pixels.

    Raises: ModelError, where it is none that this version knows.
    """
    name, values = told.get("name"), told.get("settings")
    made_of = next((made_of for known, made_of in SETTINGS.items() if known == name), None)
    if made_of is None:
        raise ModelError(f"{place}: no method {name!r} is known here; update Buttress")
    if not isinstance(values, dict):
        raise ModelError(f"{place}: method {name} without its settings; the file was changed by hand")
    if wrong := [key for key, value in values.items() if not _fits(value, get_type_hints(made_of).get(key))]:
        raise ModelError(f"{place}: method {name}: {wrong[0]} = {values[wrong[0]]!r} is of no kind known")
    try:
        return create_method(made_of(**values), size=size)
    except (TypeError, SettingsError) as failure:
        raise ModelError(f"{place}: method {name}: {' '.join(str(failure).split())}") from failure


def _fits(value: object, kind: Any) -> bool:
    """Whether a value of JSON is of a field's kind: what is a number in it may be whole, but what is whole no float."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None:
        return NoneType in kinds
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return int in kinds or float in kinds
    if isinstance(value, float):
        return float in kinds
    return isinstance(value, str) and any(get_origin(each) is Literal for each in kinds)

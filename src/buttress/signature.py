"""What a command takes, read from its typed signature and docstring; and the way back, from values to the call.

A signature holds only str, int, float, bool, Path, Literal, lists, their optional forms and settings dataclasses that
can be made without arguments. So nothing that is parsed against it can name code to import.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

REQUIRED = inspect.Parameter.empty
_TYPE_NAMES = {str: "TEXT", int: "INT", float: "NUMBER", Path: "PATH", bool: "true|false"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Argument:
    """One value that a command takes.

    Attributes:
        key: the parameter's name, dotted for a field of a settings dataclass (`optimizer.weight_decay`).
        type: its annotation.
        default: its default, or `REQUIRED`.
        help: its line in the docstring.
        positional: whether it is given by place and not by flag.
        group: what the settings dataclass is for; empty for the command's own arguments.
    """

    key: str
    type: Any
    default: Any
    help: str
    positional: bool = False
    group: str = ""

    @property
    def element(self) -> Any:
        """What a list holds, where it takes one (`str | list[str]` too); such a flag can be given several times."""
        choices = get_args(self.type) if get_origin(self.type) in (Union, types.UnionType) else (self.type,)
        return next((get_args(choice)[0] for choice in choices if get_origin(choice) is list), None)

    @property
    def flag(self) -> str:
        """`--teacher-size`; a dotted one keeps the field's name: `--optimizer.weight_decay`."""
        return "--" + (self.key if "." in self.key else self.key.replace("_", "-"))

    @property
    def negative(self) -> str:
        """The flag that switches a boolean off: `--no-dry-run`."""
        return "--no-" + self.flag.removeprefix("--")

    @property
    def shown(self) -> str:
        """The name that help and errors call it by."""
        return self.key.upper() if self.positional else self.flag


def plain(name: str) -> str:
    """One spelling for `teacher-size` and `teacher_size`, which mean the same everywhere."""
    return name.replace("-", "_")


def arguments_of(function: Callable[..., Any]) -> list[Argument]:
    """Everything that `function` can be given, settings dataclasses taken apart into their fields."""
    hints, texts = get_type_hints(function), _texts(function)
    found: list[Argument] = []
    for name, parameter in inspect.signature(function).parameters.items():
        found += _taken_apart(
            Argument(
                key=name,
                type=hints[name],
                default=parameter.default,
                help=texts.get(name, ""),
                positional=parameter.kind is not inspect.Parameter.KEYWORD_ONLY,
            )
        )
    return found


def keyword_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The call of `function` for `given` (dotted key -> value); what was not given is left to the signature.

    Raises: whatever the settings dataclasses raise for values out of range.
    """
    hints = get_type_hints(function)
    result: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        result |= _put_together(name, hints[name], parameter.default, given)
    return result


def type_name(annotation: Any) -> str:
    """How help and errors write a type: `INT`, `hard|reinforced`, `[TEXT,...]`; one or a list of them is `TEXT`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        lists = [choice for choice in inner if get_origin(choice) is list and get_args(choice)[0] in inner]
        return "|".join(type_name(choice) for choice in inner if choice not in (type(None), *lists))
    if origin is Literal:
        return "|".join(str(choice) for choice in inner)
    if origin in (list, tuple):
        return f"[{type_name(inner[0])},...]"
    return _TYPE_NAMES[annotation]


def _taken_apart(argument: Argument) -> Iterator[Argument]:
    made_of = _dataclass_of(argument.type)
    if made_of is None:
        yield argument
        return
    base = _base(made_of, argument.default)
    hints, texts = get_type_hints(made_of), _texts_of_fields(made_of)
    for field in dataclasses.fields(made_of):
        yield from _taken_apart(
            Argument(
                key=f"{argument.key}.{field.name}",
                type=hints[field.name],
                default=getattr(base, field.name),
                help=texts.get(field.name, ""),
                group=argument.help.rstrip(".") or argument.key,
            )
        )


def _put_together(key: str, annotation: Any, default: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """`{last part of key: value}`, or nothing where neither the key nor one below it was given."""
    name = key.rpartition(".")[2]
    if key in given:
        return {name: given[key]}
    made_of = _dataclass_of(annotation)
    if made_of is None or not any(other.startswith(f"{key}.") for other in given):
        return {}
    base, hints = _base(made_of, default), get_type_hints(made_of)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(made_of):
        values |= _put_together(f"{key}.{field.name}", hints[field.name], getattr(base, field.name), given)
    return {name: dataclasses.replace(base, **values)}


def _base(made_of: type[Any], default: Any) -> Any:
    return default if isinstance(default, made_of) else made_of()


def _dataclass_of(annotation: Any) -> type[Any] | None:
    choices = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((choice for choice in choices if isinstance(choice, type) and dataclasses.is_dataclass(choice)), None)


def _texts_of_fields(made_of: type[Any]) -> dict[str, str]:
    """Those of a dataclass and of the ones that it extends."""
    return {
        name: text
        for each in reversed(made_of.__mro__)
        if dataclasses.is_dataclass(each)
        for name, text in _texts(each).items()
    }


def _texts(documented: Any) -> dict[str, str]:
    from docstring_parser import DocstringStyle, parse

    described = parse(inspect.getdoc(documented) or "", style=DocstringStyle.GOOGLE)
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in described.params}

"""The recipes that come with buttress, found by name, and what their headers say.

A header is the comment at the top of the file: its first line says what the recipe is for, then lines `key: text` say
where it comes from, how to run it, how long that takes and what comes out; `before`, where there is one, has the
commands that make what it needs, parted by semicolons.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from buttress.errors import SettingsError
from buttress.nearest import did_you_mean

ENDING, SMOKE = ".yaml", ".smoke"
KEYS = ("origin", "command", "minutes", "expected", "hardware")
BEFORE, NOT_MEASURED = "before", "not measured"


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a recipe says of itself.

    Args:
        title: what it is for.
        origin: paper, page or data that it follows.
        command: the command line that runs it.
        minutes: how long that takes; None where it was not measured.
        expected: the metric that comes out, with its spread.
        hardware: what the minutes were measured on.
        before: the command lines that make what it needs, in their order.
    """

    title: str
    origin: str
    command: str
    minutes: float | None
    expected: str
    hardware: str
    before: tuple[str, ...] = ()


def shipped_names() -> list[str]:
    """Names of the shipped recipes, without their smoke twins."""
    names = sorted(path.name.removesuffix(ENDING) for path in _folder().iterdir() if path.name.endswith(ENDING))
    return [name for name in names if not name.endswith(SMOKE)]


def recipe_path(path: Path) -> Path:
    """The file that `--recipe` names: the path as it stands, or the shipped recipe of that name.

    Raises: SettingsError where it is neither a file nor a shipped recipe, and does not look like a path.
    """
    if path.is_file() or path.suffix in (ENDING, ".yml") or len(path.parts) > 1:
        return path  # where it cannot be read, its reader says why
    return shipped_path(str(path))


def shipped_path(name: str) -> Path:
    """The file of a shipped recipe, or of its smoke twin.

    Raises: SettingsError where there is none of that name, with the nearest.
    """
    known = shipped_names()
    if name.removesuffix(SMOKE) not in known:
        raise SettingsError(
            f"no recipe {name!r} is shipped{did_you_mean(name, known)}; `buttress recipes` lists those that are"
        )
    return _folder() / f"{name}{ENDING}"


def read_header(path: Path) -> Header:
    """The header of a recipe.

    Raises: SettingsError where a line of it is missing or is not `key: text`.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#") for line in lines[: _end(lines)]]
    title, *rest = comment or [""]
    values: dict[str, str] = {}
    key = ""
    for line in filter(str.strip, rest):
        if not line.startswith("  "):  # "# key: text"; what stands further right goes on with the line before it
            key, colon, text = (part.strip() for part in line.partition(":"))
            if not colon or key not in (*KEYS, BEFORE) or key in values:
                known = ", ".join((*KEYS, BEFORE))
                raise SettingsError(f"{path}: the header line {line.strip()!r} is not one of {known}, once")
            values[key] = text
        elif key:
            values[key] += " " + line.strip()
    missing = [key for key in KEYS if not values.get(key)]
    if missing or not title.strip():
        raise SettingsError(f"{path}: the header lacks {', '.join(missing) or 'a first line that says what it is for'}")
    said = values.pop("minutes")
    try:
        minutes = None if said == NOT_MEASURED else float(said)
    except ValueError as failure:
        raise SettingsError(f"{path}: minutes: {failure}") from failure
    before = tuple(line.strip() for line in values.pop(BEFORE, "").split(";") if line.strip())
    return Header(title=title.strip(), minutes=minutes, before=before, **values)


def _end(lines: list[str]) -> int:
    return next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _folder() -> Path:
    return Path(str(files("buttress.recipes")))

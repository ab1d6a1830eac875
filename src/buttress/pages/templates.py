"""The templates of the pages."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from buttress.errors import SettingsError

if TYPE_CHECKING:
    from jinja2 import Template


def page_template(name: str, **filters: Callable[..., Any]) -> Template:
    """The template `name` of this folder: what it is given is escaped, and a name that it is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("buttress", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def require_libraries() -> None:
    """Raises: SettingsError where a library that the page needs is not installed."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise SettingsError(f"the page needs {' and '.join(missing)}: pip install buttress[demo]")

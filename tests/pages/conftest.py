"""A real browser for the tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OpenPage = Callable[..., "Page"]
PHONE = (390, 844)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Headless Chromium; skips where there is none, unless BUTTRESS_REQUIRE_BROWSER is set."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("BUTTRESS_REQUIRE_BROWSER"):
            pytest.fail("BUTTRESS_REQUIRE_BROWSER is set but there is no Chromium")
        pytest.skip("no Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """As `watched_pages`."""
    with watched_pages(chromium) as open_one:
        yield open_one


@contextmanager
def watched_pages(browser: Browser) -> Iterator[OpenPage]:
    """Opens an HTML file: `open_page(path, size=(1280, 900), dark=False) -> Page`.

    At the end no page may have asked for anything but its own file, or have written an error to its console.
    """
    faults: list[str] = []
    contexts = []

    def open_one(path: Path, size: tuple[int, int] = (1280, 900), dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page, own = context.new_page(), path.resolve().as_uri()

        def asked(url: str) -> None:
            if url.partition("#")[0] != own and not url.startswith(("data:", "blob:")):
                faults.append(f"asks for {url[:200]}")

        page.on("request", lambda request: asked(request.url))
        page.on("console", lambda line: faults.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(own, wait_until="load")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not faults

"""The browser fixture itself: it sees what pages do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.pages.conftest import OpenPage, watched_pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_a_plain_page_is_opened(tmp_path: Path, open_page: OpenPage) -> None:
    path = tmp_path / "page.html"
    path.write_text("<h1>plain</h1>")
    assert open_page(path).inner_text("h1") == "plain"


@pytest.mark.parametrize(
    "body",
    ['<img src="https://example.org/x.png">', '<script>console.error("broken")</script>', "<script>none()</script>"],
)
def test_requests_and_errors_are_faults(tmp_path: Path, chromium: Browser, body: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(body)
    with pytest.raises(AssertionError), watched_pages(chromium) as open_one:
        open_one(path)

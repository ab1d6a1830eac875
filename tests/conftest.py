"""What every test shares: where the real data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and weights (`BUTTRESS_DATA`, default `../shared/data`); skips where there is none."""
    folder = Path(os.environ.get("BUTTRESS_DATA", PROJECT.parent / "shared" / "data"))
    if not (folder / "MANIFEST.md").is_file():
        if os.environ.get("BUTTRESS_REQUIRE_DATA"):
            pytest.fail(f"BUTTRESS_REQUIRE_DATA is set but {folder} holds no real data")
        pytest.skip(f"no real data at {folder}; set BUTTRESS_DATA")
    return folder

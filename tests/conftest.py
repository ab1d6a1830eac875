"""What every test shares: where the real data is, and what is done once for all of them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

# How long a test takes says nothing of the code on a machine that others use as well.
hypothesis.settings.register_profile("buttress", deadline=None)
hypothesis.settings.load_profile("buttress")

PROJECT = Path(__file__).resolve().parents[1]


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector of garbage need not look through it hundreds of times."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries complain at the end of what was never freed


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and weights (`BUTTRESS_DATA`, default `../shared/data`); skips where there is none."""
    folder = Path(os.environ.get("BUTTRESS_DATA", PROJECT.parent / "shared" / "data"))
    if not (folder / "MANIFEST.md").is_file():
        if os.environ.get("BUTTRESS_REQUIRE_DATA"):
            pytest.fail(f"BUTTRESS_REQUIRE_DATA is set but {folder} holds no real data")
        pytest.skip(f"no real data at {folder}; set BUTTRESS_DATA")
    return folder


@pytest.fixture(scope="session", autouse=True)
def probes_encoded_once() -> Iterator[None]:
    """The file of the same probe views is made once: a second of WebP for each of some hundred small labellings."""
    from buttress.labelling import label
    from buttress.store import probes, writer

    made: dict[tuple[str, tuple[int, ...], bytes], bytes] = {}

    def probes_bytes(probes_PHWC: NDArray[np.uint8]) -> bytes:
        key = (str(probes_PHWC.dtype), probes_PHWC.shape, probes_PHWC.tobytes())
        if key not in made:
            made[key] = probes.probes_bytes(probes_PHWC)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "probes_bytes", probes_bytes)
        patch.setattr(label, "probes_bytes", probes_bytes)
        yield


COLOUR_TEACHER = '''
"""A teacher for tests, NumPy only: three soft classes by the mean colour of the view."""
import numpy as np

size = 24
classes = ("blue", "green", "red")


def look(views_BHWC):
    means_BC = views_BHWC.reshape(len(views_BHWC), -1, 3).mean(axis=1)[:, ::-1] / 32.0
    masses_BC = np.exp(means_BC - means_BC.max(axis=1, keepdims=True))
    return masses_BC / masses_BC.sum(axis=1, keepdims=True)


look.size, look.classes = size, classes
'''


@pytest.fixture
def colour_teacher(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a NumPy teacher (classes blue, green, red; 24 pixels), importable here and in child processes."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "colour_teacher.py").write_text(COLOUR_TEACHER)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "python:colour_teacher:look"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 24 small noisy PNGs in the classes blue, green and red."""
    import cv2

    rng = np.random.default_rng(0)
    for number in range(24):
        label = number % 3
        pixels = rng.integers(0, 120, (20 + number, 30, 3), np.uint8)
        pixels[..., label] += 90  # OpenCV's order: blue, green, red
        folder = tmp_path / "photos" / ("blue", "green", "red")[label]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)
    return tmp_path / "photos"

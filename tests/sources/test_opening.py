"""Source URIs: what is known opens, what is not gets a one-line hint."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from buttress.errors import SourceError
from buttress.sources import decode, fingerprint, image_size, open_source


def test_digits_are_the_real_set() -> None:
    digits = open_source("digits")
    assert (len(digits), digits.uri, digits.classes) == (1797, "digits", tuple("0123456789"))
    assert len(set(digits.ids)) == 1797
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    sample = digits[0]
    assert isinstance(sample.data, np.ndarray)
    assert (sample.data.shape, image_size(sample.data), sample.label) == ((8, 8), (8, 8), 0)
    pixels = decode(sample.data)
    assert pixels.shape == (8, 8, 3)
    assert pixels[0, :, 2].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert fingerprint(pickle.loads(pickle.dumps(digits))) == fingerprint(digits)
    assert open_source("digits", labels=False).classes is None


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SourceError, match=r"pip install buttress\[demo\]"):
        open_source("digits")


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("flder:photos", "did you mean 'folder:photos'"),
        ("Digits", "did you mean 'digits'"),
        ("digits:train", "did you mean 'digits'"),
        ("parqet:a.parquet?label=x", r"did you mean 'parquet:a.parquet\?label=x'"),
        ("a/b.parquet", "did you mean 'parquet:a/b.parquet'"),
        ("some/where", "did you mean 'folder:some/where'"),
        ("folder:", "needs a path"),
        ("parquet", "needs a path"),
        ("wsd:a-{0..3}.tar", r"did you mean 'wds:a-\{0..3\}.tar'"),
        ("torchvison:CIFAR10", "did you mean 'torchvision:CIFAR10'"),
        ("a/b.tar", "did you mean 'tar:a/b.tar'"),
        ("s3://bucket/photos", "did you mean 'folder:s3://bucket/photos'"),
        ("hf:", "needs a name or folder behind it"),
        ("wds", "needs a pattern"),
        ("s3:bucket", "known are folder:DIR, packed:DIR, parquet:FILE"),
        ("", "known are"),
    ],
)
def test_unknown_uris_get_a_hint(uri: str, hint: str) -> None:
    with pytest.raises(SourceError, match=hint) as caught:
        open_source(uri)
    assert "\n" not in str(caught.value)


def test_a_bare_folder_gets_its_uri(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"did you mean 'folder:{tmp_path}'"):
        open_source(str(tmp_path))


def test_importing_the_room_imports_nothing_heavy() -> None:
    heavy = ["torch", "torchvision", "cv2", "PIL", "pyarrow", "sklearn", "datasets", "fsspec", "safetensors"]
    code = f"import sys, buttress.sources; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"

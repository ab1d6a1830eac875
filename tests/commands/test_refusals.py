"""What a command refuses: in one line, before any work or folder is made."""

from __future__ import annotations

import pytest

from buttress.cli import main

QUICK = ["--size", "32", "--epochs", "1", "--batch", "8", "--workers", "0"]


def refusal(capsys, *words) -> str:
    """The one line that a command ends with; its exit code is 2."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if "error:" in line]
    return line


@pytest.mark.parametrize(
    ("model", "size", "said"),
    [
        ("timm:test_vit", "33", "cannot run at 33 pixels (Input height (33) should be divisible by patch size (16)"),
        ("timm:test_convnext", "7", "cannot run at 7 pixels"),
        ("timm:test_resnet", "0", "--size 0: the views need at least 1 pixel"),
        ("timm:test_resnet", "-3", "--size -3: the views need at least 1 pixel"),
    ],
)
def test_a_size_that_the_model_cannot_take_leaves_the_folder_free(photos, tmp_path, capsys, model, size, said):
    out = tmp_path / "run"
    words = ["train", "--model", model, "--data", f"folder:{photos}", "--out", out, *QUICK]
    assert said in refusal(capsys, *words, f"--size={size}")
    assert not out.exists()

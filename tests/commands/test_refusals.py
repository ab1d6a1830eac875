"""What a command refuses: in one line, before any work or folder is made."""

from __future__ import annotations

import pytest

from buttress.cli import main

QUICK = ["--size", "32", "--epochs", "1", "--batch", "8", "--workers", "0"]


def refusal(capsys, *words) -> str:
    """The one line that a command ends with; its exit code is 2."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    error: str = capsys.readouterr().err
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


def foreign(folder):
    folder.mkdir()
    (folder / "thesis.tex").touch()
    return folder


@pytest.mark.parametrize("verb", ["train", "reinforce", "refine", "fold"])
def test_a_folder_of_other_files_is_refused(photos, colour_teacher, tmp_path, capsys, verb):
    words = {
        "train": ["--model", "timm:test_resnet", "--data", f"folder:{photos}", *QUICK],
        "reinforce": ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--workers", "0"],
        "refine": ["--model", "timm:test_resnet", "--data", f"folder:{photos}", *QUICK],
        "fold": [f"run:{tmp_path}", "--data", f"folder:{photos}"],
    }
    line = refusal(capsys, verb, *words[verb], "--out", foreign(tmp_path / "mine"))
    assert f"--out {tmp_path / 'mine'}: holds thesis.tex, so it is not" in line
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_file_beside_a_reinforcement_does_not_keep_it_from_growing(photos, colour_teacher, tmp_path):
    words = ["reinforce", "--source", f"folder:{photos}", "--teacher", colour_teacher, "--k", "2", "--workers", "0"]
    assert main([*words, "--views", "1", "--out", str(tmp_path / "plus")]) == 0
    (tmp_path / "plus" / "README.md").touch()
    assert main([*words, "--views", "2", "--out", str(tmp_path / "plus")]) == 0


@pytest.mark.parametrize("verb", ["train", "reinforce", "refine", "fold", "evaluate", "predict"])
def test_a_place_that_cannot_be_written_to_is_noticed_before_the_work(photos, colour_teacher, tmp_path, capsys, verb):
    (tmp_path / "file").touch()
    words = {
        "train": ["--model", "timm:test_resnet", "--data", f"folder:{photos}", *QUICK],
        "reinforce": ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--workers", "0"],
        "refine": ["--model", "timm:test_resnet", "--data", f"folder:{photos}", *QUICK],
        "fold": [f"run:{tmp_path}", "--data", f"folder:{photos}"],
        "evaluate": ["timm:no_such_model", "--data", f"folder:{photos}"],
        "predict": ["timm:no_such_model", "--source", f"folder:{photos}"],
    }
    line = refusal(capsys, verb, *words[verb], "--out", tmp_path / "file" / "deep" / "out.csv")
    assert f"--out {tmp_path / 'file' / 'deep' / 'out.csv'}: Not a directory; name a place that can be written" in line


def test_an_estimate_tells_both_parts_of_a_store(photos, colour_teacher, tmp_path, capsys):
    words = ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--views", "4", "--k", "2", "--workers", "0"]
    assert main(["reinforce", *words, "--dry-run", "--out", str(tmp_path / "plus")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bytes")]
    stride = int(line.split("(")[1].split(" a view")[0])
    assert f"{24 * 4 * stride} bytes of labels ({stride} a view) and 262.7 kB of ids, index and probe views" in line
    assert not (tmp_path / "plus").exists()

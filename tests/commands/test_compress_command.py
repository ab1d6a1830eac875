"""`buttress compress` as a user runs it: a small or elastic run, and one line where something is wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tests.commands.test_commands import said

from buttress.cli import main
from buttress.runs.run import COMPRESSION, open_run
from buttress.weights.levels import move

TRAIN = ["--size", "32", "--epochs", "2", "--batch", "8", "--workers", "0"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """24 photos, a plain run on them, and what `compress` makes of it, each once."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("compress")
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("blue", "green", "red")):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 100, (40, 40, 3)).astype(np.uint8)
            pixels[..., channel] += 120
            cv2.imwrite(str(folder / "photos" / name / f"{number}.png"), pixels)
    data = ["--data", f"folder:{folder}/photos", "--val", f"folder:{folder}/photos"]
    assert main(["train", "--model", "timm:test_resnet", *data, *TRAIN, "--out", f"{folder}/plain"]) == 0
    flags = {
        "dkm": ["--dkm.bits", "2"],
        "lcs": ["--lcs.warmup", "0.5"],
        "subspace": ["--subspace.kind", "curve"],
    }
    for method, more in flags.items():
        words = ["compress", f"{folder}/plain", "--method", method, *data, *TRAIN, *more]
        assert main([*words, "--out", f"{folder}/{method}"]) == 0
    return folder


def test_what_was_made_is_told(made, capsys):
    told = json.loads((made / "dkm" / COMPRESSION).read_text())
    assert [row["what"] for row in told["rows"]] == [
        "the model it began with",
        "k-means, batch statistics re-estimated",
        "dkm, 2 bit",
    ]
    plain, kmeans, dkm = told["rows"]
    assert plain["bytes"] > 10 * dkm["bytes"] == 10 * kmeans["bytes"]
    assert all(row["figures"]["top1"]["count"] == 24 for row in told["rows"])
    assert dkm["figures"]["top1"]["value"] == open_run(made / "dkm").read_metrics()[-1]["val"]["top1"]["value"]
    sizes = told["sizes"]
    assert sizes["file"] == dkm["bytes"] > sizes["indices"] + sizes["palettes"] + sizes["unclustered"]
    assert all(0 < gap < 1 for gap in told["gap"].values())
    rows = json.loads((made / "lcs" / COMPRESSION).read_text())["rows"]
    assert [row["what"] for row in rows[1:]] == [f"lcs, keep={k}" for k in ("1", "0.5", "0.25", "0.1", "0.025")]
    assert rows[1]["bytes"] > 4 * rows[-1]["bytes"]


@pytest.mark.parametrize("method", ["dkm", "lcs", "subspace"])
def test_the_result_is_a_run_that_is_built_again_as_it_was_trained(made, method):
    run = open_run(made / method)
    assert [told["name"] for told in run.methods] == [method]
    loaded, (by,) = run.load_prepared()
    images = torch.randn(2, 3, 32, 32)
    for level in run.levels() or (None,):
        if level is not None:
            move(loaded.module, level)
        plain = run.load_model(level, measured=True)
        with torch.no_grad():
            wanted = loaded.module.eval()(images)
            torch.testing.assert_close(plain.module.eval()(images), wanted, rtol=1e-5, atol=1e-5)
        assert plain.stored_bytes
    assert by.name == method


def test_a_level_is_named_wherever_a_model_is(made, capsys):
    words = ["--data", f"folder:{made}/photos", "--workers", "0", "--json"]
    figures = {}
    for model in ("lcs@keep=0.025", "lcs@keep=0.5", "subspace@at=0+1"):
        assert main(["evaluate", f"run:{made}/{model}", *words]) == 0
        figures[model] = json.loads(capsys.readouterr().out)
    assert figures["lcs@keep=0.025"]["nll"] != figures["lcs@keep=0.5"]["nll"]


def test_the_recipe_makes_it_again(made, tmp_path):
    out = tmp_path / "again"
    assert main(["compress", "--recipe", str(made / "dkm" / "recipe.yaml"), "--out", str(out)]) == 0
    assert (out / "model.safetensors").read_bytes() == (made / "dkm" / "model.safetensors").read_bytes()
    assert "lcs" not in (out / "recipe.yaml").read_text()


def test_a_finished_run_is_left_alone(made, capsys):
    words = ["compress", f"{made}/plain", "--method", "dkm", "--data", f"folder:{made}/photos", *TRAIN]
    words += ["--val", f"folder:{made}/photos", "--dkm.bits", "2", "--out", f"{made}/dkm"]
    before = (made / "dkm" / "model.safetensors").read_bytes()
    assert said(capsys, words) == (
        2,
        f"buttress compress: error: {made}/dkm: holds a run already; name another --out, or go on with it by --resume",
    )
    assert main([*words, "--resume"]) == 0
    assert "finished already" in capsys.readouterr().err
    code, line = said(capsys, ["compress", *words[1:3], "lcs", *words[4:-4], "--out", f"{made}/dkm", "--resume"])
    assert code == 2
    assert f"{made}/dkm: was started with other settings: dkm, lcs, method (dkm there, lcs asked for)" in line
    code, line = said(capsys, [*words, "--dkm.tau", "0.5", "--resume"])
    assert code == 2
    assert "other settings: dkm.tau (None there, 0.5 asked for)" in line
    assert (made / "dkm" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "dkm", "--lcs.low", "0.1"], "--lcs.*: is of --method lcs, and this is dkm; leave it out"),
        (["--method", "dkm", "--dkm.bits", "9"], "dkm.bits = 9: must be 1 to 8"),
        (
            ["--method", "dkm", "--dkm.min-weights", "10000000"],
            "dkm: this model (ResNet) has no weight of more than 10,000,000 numbers; lower",
        ),
        (["--method", "lcs", "--lcs.low", "0"], "lcs.low = 0: must be a share, above 0 and at most 1"),
        (
            ["--method", "lcs", "--lcs.low", "0.5", "--lcs.high", "0.25"],
            "lcs.low = 0.5: must not be above lcs.high, which is 0.25",
        ),
        (["--method", "subspace", "--subspace.corners", "7"], "subspace.corners = 7: must be 2 to 6"),
        (["--method", "lcs", "--lcs.level", "width", "--lcs.draw", "uniform"], "--lcs.draw: changes nothing beside"),
        (["--method", "subspace", "--subspace.corners", "4"], "--subspace.corners: changes nothing beside the other"),
        (["--method", "lcs", "--lcs.warmup", "0.99"], "lcs.warmup = 0.99: no step of 6 comes after it; train longer"),
        (["--method", "dkm", "--missing", "hard"], "--missing hard: says what to do without stored labels"),
        (["--method", "dkm", "--other-settings"], "--other-settings: says how to go on, so it needs --resume"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_and_leaves_nothing(made, tmp_path, capsys, words, message):
    code, line = said(
        capsys,
        ["compress", f"{made}/plain", "--data", f"folder:{made}/photos", *TRAIN, *words, "--out", tmp_path / "x"],
    )
    assert code == 2
    assert message in line
    assert not (tmp_path / "x" / "run.json").exists()


def test_a_compressed_run_is_no_plain_model(made, tmp_path, capsys):
    for words in (
        ["train", "--model", f"run:{made}/lcs", "--data", f"folder:{made}/photos", *TRAIN],
        ["compress", f"{made}/dkm", "--method", "lcs", "--data", f"folder:{made}/photos", *TRAIN],
    ):
        code, line = said(capsys, [*words, "--out", tmp_path / "x"])
        assert code == 2
        assert "is compressed, and trains no further; train a plain model, then compress it" in line


def test_the_account_is_made_again_where_there_is_something_to_score_on(made, tmp_path, capsys):
    words = ["compress", f"{made}/plain", "--method", "dkm", "--data", f"folder:{made}/photos", *TRAIN]
    words += ["--out", f"{tmp_path}/dkm"]
    assert main(words) == 0
    told = tmp_path / "dkm" / COMPRESSION
    assert [row["figures"] for row in json.loads(told.read_text())["rows"]] == [None, None]
    assert main([*words, "--val", f"folder:{made}/photos", "--resume"]) == 0
    rows = json.loads(told.read_text())["rows"]
    assert len(rows) == 3 and all(row["figures"]["top1"]["count"] == 24 for row in rows)


def test_a_model_of_other_classes_has_no_row(made, tmp_path, capsys):
    others = tmp_path / "others"
    shutil.copytree(made / "photos", others)
    (others / "blue").rename(others / "violet")
    words = ["compress", f"run:{made}/plain", "--method", "dkm", "--data", f"folder:{others}", *TRAIN]
    assert main([*words, "--val", f"folder:{others}", "--out", f"{tmp_path}/dkm"]) == 0
    assert "learnt other classes, or in another order" in capsys.readouterr().err
    rows = json.loads((tmp_path / "dkm" / COMPRESSION).read_text())["rows"]
    assert [row["what"] for row in rows] == ["dkm, 2 bit"]


def test_a_card_of_another_method_is_told(made, tmp_path):
    import shutil

    from buttress.errors import ModelError

    shutil.copytree(made / "dkm", tmp_path / "dkm")
    card = json.loads((tmp_path / "dkm" / "run.json").read_text())
    for methods, message in (
        ([{"name": "magic", "settings": {}}], "no method 'magic' is known here; update Buttress"),
        ([{"name": "dkm"}], "method dkm without its settings"),
        ([{"name": "dkm", "settings": {"bits": 12}}], "method dkm: dkm.bits = 12: must be 1 to 8"),
        ([{"name": "dkm", "settings": {"bit": 2}}], "method dkm: bit = 2 is of no kind known"),
        ([{"name": "dkm", "settings": {"bits": 2.5}}], "method dkm: bits = 2.5 is of no kind known"),
        ([{"name": "dkm", "settings": {"bits": True}}], "method dkm: bits = True is of no kind known"),
        ([{"name": "lcs", "settings": {"kind": 3}}], "method lcs: kind = 3 is of no kind known"),
        (["dkm"], "'methods' is not a list of methods"),
    ):
        (tmp_path / "dkm" / "run.json").write_text(json.dumps({**card, "methods": methods}))
        with pytest.raises(ModelError, match=message.replace("(", r"\(")):
            open_run(tmp_path / "dkm").load_model()

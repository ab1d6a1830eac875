"""A run in timm's hands: its weights as a checkpoint, its folder in the hub's layout, its card."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml

from buttress.cli import main
from buttress.errors import ModelError, SettingsError
from buttress.export.timm_folder import export_to_timm, without_folders
from buttress.models.load import at_size, load_model
from buttress.runs import Run, open_run

CLASSES = ("ant", "bee", "cat")


def a_run(path, name, size):
    model = at_size(load_model(f"timm:{name}", num_classes=3, seed=1), size)
    run = Run.of(
        path,
        model=model,
        classes=CLASSES,
        settings={"model": "timm:test_vit@/home/me/vit.safetensors"},
        versions={"torch": "2"},
        data={
            "uri": "folder:/home/me/photos",
            "count": 1200,
            "fingerprint": "ab",
            "teachers": {
                "0": {"model": {"name": "convnext_tiny"}, "weights_sha256": "ef", "licence": "cc-by-nc-4.0"},
                "1": {"uri": "python:rules:look", "model": None, "weights_sha256": None, "licence": None},
            },
        },
        reinforcement="cd",
    ).create()
    run.save_weights(model.module.state_dict())
    top1 = {"value": 0.625, "count": 400, "low": 0.5, "high": 0.7}
    top5 = {"value": None, "count": 400, "low": None, "high": None}  # of three classes
    run.append_metrics({"epoch": 1, "val": {"top1": {**top1, "value": 0.5}}})
    run.append_metrics({"epoch": 2, "val": {"top1": top1, "top5": top5}})
    run.append_metrics({"epoch": 3, "val": None})
    (path / "recipe.yaml").write_text("data: folder:/home/me/photos\nmodel: timm:test_vit\nepochs: 3\n")
    return run, model


@pytest.mark.parametrize(("name", "size"), [("test_vit", 64), ("test_resnet", 48)])
def test_R27_timm_alone_reads_the_weights_and_the_folder(tmp_path, name, size):
    run, model = a_run(tmp_path / "run", name, size)
    export_to_timm(run, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()
    torch.save(images := torch.rand(2, 3, size, size), tmp_path / "images.pt")
    code = (
        "import sys, json, torch, timm\n"
        f"images = torch.load({str(tmp_path / 'images.pt')!r})\n"
        f"hub = timm.create_model('local-dir:{tmp_path / 'out'}', pretrained=True).eval()\n"
        f"plain = timm.create_model({name!r}, checkpoint_path={str(run.path / 'model.safetensors')!r}, "
        f"**{model.kwargs!r}).eval()\n"
        "data = timm.data.resolve_model_data_config(hub)\n"
        "labels = hub.pretrained_cfg['label_names']\n"
        "assert 'buttress' not in sys.modules\n"
        "print(json.dumps([hub(images).tolist(), plain(images).tolist(), data, labels]))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    hub, plain, data, labels = json.loads(told.stdout.splitlines()[-1])
    expected = model.module.eval()(images)
    assert torch.equal(torch.tensor(hub), expected)
    assert torch.equal(torch.tensor(plain), expected)
    said = model.preprocessing
    assert data == {
        "input_size": [3, size, size],
        "mean": list(said.mean),
        "std": list(said.std),
        "interpolation": said.interpolation,
        "crop_pct": said.crop_pct,
        "crop_mode": "center",
    }
    assert labels == list(CLASSES)


def test_the_card_says_what_was_done_and_nothing_of_the_machine(tmp_path, capsys):
    run, _ = a_run(tmp_path / "student", "test_resnet", 48)
    assert main(["export", f"run:{run.path}", "--out", str(tmp_path / "out")]) == 0
    assert "local-dir:" in capsys.readouterr().err
    text = (tmp_path / "out" / "README.md").read_text()
    _, metadata, body = text.split("---\n", 2)
    said = yaml.safe_load(metadata)
    assert (said["license"], said["library_name"], said["pipeline_tag"]) == ("unknown", "timm", "image-classification")
    (result,) = said["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.625
    for part in (
        "# student",
        "`test_resnet`, 0.37 M parameters, 3 classes",
        "Training images: 1,200 of folder:photos, fingerprint `ab`",
        "Weights it began with: timm:test_vit@vit.safetensors, licence unknown",
        "Teacher: convnext_tiny, licence cc-by-nc-4.0",
        "Teacher: python:rules:look, licence unknown",
        "| top1 | 0.6250 | 400 |",
        "data: folder:photos\nmodel: timm:test_vit\nepochs: 3",
    ):
        assert part in body
    assert "/home" not in text
    assert str(tmp_path) not in text


def test_what_cannot_be_exported_is_refused(tmp_path, capsys):
    run, model = a_run(tmp_path / "run", "test_resnet", 48)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(SettingsError, match="full"):
        export_to_timm(run, tmp_path / "full")
    compressed = Run.of(
        tmp_path / "small", model=model, classes=None, settings={}, versions={}, data={}, methods=[{"name": "dkm"}]
    ).create()
    with pytest.raises(ModelError, match="compressed"):
        export_to_timm(compressed, tmp_path / "out")
    assert main(["export", "timm:test_vit", "--out", str(tmp_path / "out")]) == 2
    assert "only a run will do" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("folder:/home/me/photos/train", "folder:train"),
        ("folder:/my photos/train", "folder:train"),
        ("timm:vit@/weights/a.safetensors", "timm:vit@a.safetensors"),
        ("/data/photos+", "photos+"),
        ("folder:photos/train", "folder:photos/train"),
        ("hf:user/name:train", "hf:user/name:train"),
        ("wds:s3://bucket/key", "wds:s3://bucket/key"),
        (["run:/a/b", {"size": 3}], ["run:b", {"size": 3}]),
    ],
)
def test_folders_of_the_machine_are_left_out(text, expected):
    assert without_folders(text) == expected


def test_a_licence_goes_from_weights_to_run_to_model(tmp_path):
    model = replace(load_model("timm:test_resnet", num_classes=3, seed=1), licence="cc-by-nc-4.0")
    run = Run.of(tmp_path / "run", model=model, classes=CLASSES, settings={}, versions={}, data={}).create()
    run.save_weights(model.module.state_dict())
    assert open_run(run.path).load_model().licence == "cc-by-nc-4.0"
    assert load_model(f"timm:test_resnet@{run.path / 'model.safetensors'}").licence == "cc-by-nc-4.0"

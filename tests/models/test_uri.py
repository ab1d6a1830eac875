from pathlib import Path

import pytest

from buttress.errors import ModelError
from buttress.models.uri import ModelURI, parse_model_uri


def test_every_form_is_parsed():
    assert parse_model_uri("timm:resnet18") == ModelURI(scheme="timm", name="resnet18")
    assert parse_model_uri("timm:resnet18.a1_in1k").name == "resnet18.a1_in1k"
    weights = parse_model_uri("timm:resnet18@some/folder/w.safetensors")
    assert (weights.name, weights.path) == ("resnet18", Path("some/folder/w.safetensors"))
    assert parse_model_uri("run:runs/a") == ModelURI(scheme="run", name="a", path=Path("runs/a"))
    assert parse_model_uri("python:pkg.mod:func") == ModelURI(scheme="python", name="pkg.mod:func")


def test_a_folder_without_a_scheme_is_a_run(tmp_path):
    assert parse_model_uri(str(tmp_path)) == ModelURI(scheme="run", name=tmp_path.name, path=tmp_path)


def test_public_names_no_folder():
    assert parse_model_uri("timm:resnet18@/secret/w.safetensors").public == "timm:resnet18@w.safetensors"
    assert parse_model_uri("run:/secret/a").public == "run:a"
    assert parse_model_uri("python:m:f").public == "python:m:f"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tim:resnet18", "did you mean timm?"),
        ("resnet18", "did you mean timm:resnet18?"),
        ("weights/a.safetensors", "did you mean timm:NAME@weights/a.safetensors?"),
        ("timm:a.pth", "did you mean timm:NAME@a.pth?"),
        ("timm:", "nothing after timm:"),
        ("timm:resnet18@", "timm:NAME@FILE.safetensors"),
        ("runs/absent", "no such run folder"),
        ("python:module", "python:pkg.mod:func"),
        ("python:a-b:f", "python:pkg.mod:func"),
        ("", "an empty text"),
    ],
)
def test_a_malformed_uri_is_one_line_with_a_hint(text, hint):
    with pytest.raises(ModelError) as failure:
        parse_model_uri(text)
    assert hint in str(failure.value)
    assert "\n" not in str(failure.value)

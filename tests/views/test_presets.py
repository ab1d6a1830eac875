import json

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from buttress.errors import PolicyError
from buttress.views.policy import HorizontalFlip, Policy, RandAugment, RandomErasing, RandomResizedCrop
from buttress.views.presets import PRESETS, eval_policy, preset, read_policy
from buttress.views.render import Renderer


def test_the_recommended_policy_is_the_papers():
    ops = RandomResizedCrop(scale=(0.08, 1.0)), HorizontalFlip(p=0.5), RandAugment(num_ops=2, magnitude=9)
    assert preset("randaug") == Policy((*ops, RandomErasing(p=0.25)))
    assert preset("crop") == Policy(ops[:2])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    assert Policy.from_json(preset(name).to_json()) == preset(name)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(PolicyError, match=r"no policy 'randaugment'.*did you mean randaug"):
        preset("randaugment")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "crop_pct"), [(96, 0.9), (224, 0.875), (288, 1.0)])
def test_evaluation_agrees_with_timm(real_data, interpolation, size, crop_pct):
    """On square photos and even margins: elsewhere timm's crop lands on whole pixels, up to half a pixel off centre."""
    transform = create_transform(size, interpolation=interpolation, crop_pct=crop_pct, mean=(0,) * 3, std=(1,) * 3)
    renderer = Renderer(eval_policy(size, crop_pct, interpolation), 0)
    files = sorted((real_data / "photos" / "imagenet1k_sample" / "val").rglob("*.*"))[10:16]
    differences = []
    for file in files:
        photo = Image.open(file).convert("RGB")
        photo = photo.crop((0, 0, min(photo.size), min(photo.size)))
        theirs = (transform(photo).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        ours = renderer.views(np.asarray(photo), 0, [0], size)[0]
        differences.append(np.abs(ours.astype(int) - theirs).mean())
    assert len(differences) == 6
    assert np.mean(differences) < 1.0


@pytest.mark.parametrize(("crop_pct", "interpolation"), [(0.0, "area"), (1.1, "area"), (0.9, "lanczos")])
def test_other_evaluation_looks_are_refused(crop_pct, interpolation):
    with pytest.raises(PolicyError):
        eval_policy(96, crop_pct, interpolation)


def test_a_policy_is_read_from_a_file_or_by_name(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(preset("small").to_json()))
    assert read_policy(str(file)) == preset("small") == read_policy("small")


def test_a_bad_policy_file_is_named(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"version": 1, "ops": [{"op": "RandomCorp"}]}')
    with pytest.raises(PolicyError, match=r"mine\.json: policy op 0: unknown op 'RandomCorp'.*RandomCrop"):
        read_policy(str(file))
    with pytest.raises(PolicyError, match="absent"):
        read_policy(str(tmp_path / "absent.json"))

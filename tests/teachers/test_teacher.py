from pathlib import Path

import pytest

from buttress.errors import SettingsError
from buttress.teachers import TeacherSpec


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"classes": "mine"},
        {"precision": "fp16"},
        {"threads": 0},
        {"classes": "teacher", "class_map": Path("map.yaml")},
    ],
)
def test_a_setting_out_of_range_is_named(wrong):
    with pytest.raises(SettingsError) as failure:
        TeacherSpec(uri="timm:test_vit", **wrong)
    assert next(iter(wrong)).replace("class_map", "class map") in str(failure.value)

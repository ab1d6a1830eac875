import pickle
import subprocess
import sys

import numpy as np
import pytest

from buttress.errors import ModelError
from buttress.teachers import TeacherSpec, open_teacher

VIEWS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
MODULE = """
import numpy as np

def brightness(views):
    light = views.reshape(len(views), -1).mean(axis=1) / 255
    return np.stack([light / 2, 1 - light, light / 2], axis=1)

def named(views):
    return brightness(views)
named.classes = ("bright", "dark", "tench")
named.size = 8

def ids(views): return np.zeros((len(views), 2), dtype=int)
def short(views): return brightness(views)[1:]
def flat(views): return brightness(views)[:, 0]
def logits(views): return brightness(views) * 4
def negative(views): return brightness(views) - [[1, 0, -1]]
def nan(views): return brightness(views) * np.nan
def fails(views): raise ValueError("no\\nluck")
def silent(views): return np.tile([[0.0, 1.0, 0.0]], (len(views), 1))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working directory, under a name that no other test uses."""
    name = f"own_teacher_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    return name


def test_a_function_of_the_working_directory_teaches(module):
    teacher = open_teacher(f"python:{module}:brightness", size=8, source_classes=("a", "b", "c"))
    light = VIEWS.reshape(5, -1).mean(axis=1) / 255
    probabilities_BC = teacher.probabilities(VIEWS)
    np.testing.assert_allclose(probabilities_BC, np.stack([light / 2, 1 - light, light / 2], 1), rtol=1e-6)
    assert probabilities_BC.dtype == np.float32
    assert (teacher.size, teacher.classes, teacher.unmapped_share) == (8, ("a", "b", "c"), 0)


def test_its_classes_and_size_are_honoured(module):
    teacher = open_teacher(f"python:{module}:named", source_classes=("n01440764", "Dark"))
    light = VIEWS.reshape(5, -1).mean(axis=1) / 255
    expected = np.stack([light / 2, 1 - light], axis=1) / (1 - light / 2)[:, None]
    np.testing.assert_allclose(teacher.probabilities(VIEWS), expected, rtol=1e-6)
    assert teacher.size == 8
    assert teacher.classes == ("n01440764", "Dark")
    assert teacher.unmapped_share == pytest.approx((light / 2).mean())
    assert teacher.describe()["class_map"] == {"n01440764": ["tench"], "Dark": ["dark"]}


def test_temperature_softens(module):
    teacher = open_teacher(f"python:{module}:named", temperature=2.0, classes="teacher")
    roots = np.sqrt(open_teacher(f"python:{module}:named", classes="teacher").probabilities(VIEWS))
    np.testing.assert_allclose(teacher.probabilities(VIEWS), roots / roots.sum(axis=1, keepdims=True), rtol=1e-5)


def test_nothing_on_the_classes_wanted_is_even(module, tmp_path):
    (tmp_path / "map.yaml").write_text("a: 0\nb: 2\n")
    teacher = open_teacher(f"python:{module}:silent", size=8, class_map=tmp_path / "map.yaml")
    np.testing.assert_allclose(teacher.probabilities(VIEWS), 0.5)
    assert teacher.unmapped_share == 1


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("ids", "floats of shape"),
        ("short", r"shape \(4, 3\) for 5 views"),
        ("flat", "floats of shape"),
        ("logits", "did it give logits"),
        ("negative", "negative"),
        ("nan", "NaN"),
    ],
)
def test_what_is_no_probability_is_one_line(module, function, says):
    teacher = open_teacher(f"python:{module}:{function}", size=8)
    with pytest.raises(ModelError, match=says) as failure:
        teacher.probabilities(VIEWS)
    assert "\n" not in str(failure.value)


def test_another_number_of_classes_than_the_sources_is_an_error(module):
    teacher = open_teacher(f"python:{module}:brightness", size=8, source_classes=("a", "b"))
    with pytest.raises(ModelError, match="gave 3 classes, 2 are needed"):
        teacher.probabilities(VIEWS)


def test_a_map_beyond_its_outputs_is_an_error(module, tmp_path):
    (tmp_path / "map.yaml").write_text("a: 0\nb: 5\n")
    teacher = open_teacher(f"python:{module}:brightness", size=8, class_map=tmp_path / "map.yaml")
    with pytest.raises(ModelError, match="gave 3 classes, 6 are needed"):
        teacher.probabilities(VIEWS)


def test_what_cannot_be_found_is_named(module):
    with pytest.raises(ModelError, match="cannot import no_such_module"):
        open_teacher("python:no_such_module:f", size=8)
    with pytest.raises(ModelError, match=r"no function 'brightnes'; did you mean brightness\?"):
        open_teacher(f"python:{module}:brightnes", size=8)
    with pytest.raises(ModelError, match="--teacher-size"):
        open_teacher(f"python:{module}:brightness")


def test_a_failure_of_its_own_code_is_one_line_with_type_and_place(module, tmp_path):
    teacher = open_teacher(f"python:{module}:fails", size=8)
    place = rf"{module}\.py, line \d+\)$"
    with pytest.raises(ModelError, match=rf"^python:{module}:fails: .*5 views.*\(ValueError: no luck; .*{place}"):
        teacher.probabilities(VIEWS)
    for line, said in (("1 / 0", "ZeroDivisionError: division by zero"), ("import sys; sys.exit(3)", "SystemExit: 3")):
        (tmp_path / f"{module}_b.py").write_text(line)
        with pytest.raises(ModelError, match=rf"{module}_b failed while it was imported \({said}; .*, line 1\)$"):
            open_teacher(f"python:{module}_b:f", size=8)


def test_it_needs_no_torch(module):
    code = (
        "import sys; from buttress.teachers import open_teacher; import numpy as np; "
        f"t = open_teacher('python:{module}:named', classes='teacher'); "
        "t.probabilities(np.zeros((1, 8, 8, 3), np.uint8)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_its_spec_opens_it_again_elsewhere(module):
    teacher = open_teacher(f"python:{module}:named", temperature=3.0, classes="teacher")
    spec = pickle.loads(pickle.dumps(teacher.spec))
    assert spec == TeacherSpec(
        uri=f"python:{module}:named", size=8, temperature=3.0, classes="teacher", precision="fp32"
    )
    again = spec.open()
    assert again.describe() == teacher.describe()
    np.testing.assert_array_equal(again.probabilities(VIEWS), teacher.probabilities(VIEWS))

"""A reinforcement by several teachers: its labels, its card, growing it, and asking all of them again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.labelling.by_hand import said_of
from tests.labelling.conftest import NARROW_TEACHER
from tests.labelling.small_labelling import SMALL, bytes_of, labelled, spec_of

from buttress.cli import main
from buttress.errors import LabellingError, SettingsError
from buttress.labelling import label
from buttress.labelling.label import label_source
from buttress.labelling.rerun import teacher_of
from buttress.labelling.settings import LabelSettings
from buttress.sources import decode
from buttress.store.reader import open_reinforcement
from buttress.store.verify import check_integrity
from buttress.teachers import EnsembleSpec
from buttress.views.presets import preset

POLICY = preset("randaug")
run = partial(labelled, policy=POLICY)


def test_the_store_holds_the_mean_of_what_each_says_of_the_view_at_its_size(source, uris, tmp_path):
    store = run(source, uris, tmp_path / "plus", weights=(3.0, 1.0), k=3)
    for row, view in [(0, 0), (5, 3), (23, 2)]:
        said = said_of(spec_of(uris, source, (3.0, 1.0)), POLICY, source, source.ids[row], view)
        values, ids, _ = store.targets(np.array([row]), view)
        np.testing.assert_allclose(values[0], said[ids[0]], rtol=0.03)
    assert check_integrity(tmp_path / "plus").whole


def test_each_image_is_decoded_once(source, uris, tmp_path, monkeypatch):
    decoded: list[bytes] = []

    def counted(data):
        if isinstance(data, bytes):
            decoded.append(data)
        return decode(data)

    for module in ("labelling.row_images", "labelling.looks", "views.render"):
        monkeypatch.setattr(f"buttress.{module}.decode", counted)
    monkeypatch.setattr(label, "sanity", lambda *_: None)
    run(source, uris, tmp_path / "plus")
    assert len(decoded) == len(set(decoded)) == len(source)


def test_the_card_lists_every_member_with_its_weight(source, uris, tmp_path):
    store = run(source, uris, tmp_path / "plus", weights=(2.0, 1.0))
    said = store.card.teachers
    assert [(one["uri"], one["size"]) for one in said] == [(uris[0], 24), (uris[1], 16)]
    assert [one["weight"] for one in said] == [2 / 3, 1 / 3]
    assert said[1]["class_map"] == {"blue": ["blue"], "green": ["green"], "red": ["red"]}
    assert "weight" not in run(source, uris[:1], tmp_path / "alone").card.teachers[0]


def test_one_teacher_by_any_spelling_is_the_same_store(photos, colour_teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(f"source: folder:photos\nteacher: [{colour_teacher!r}]\nteacher-weights: [7]\n")
    words = ["--views=2", "--k=2", "--workers=0"]
    assert main(["reinforce", "--source=folder:photos", "--teacher", colour_teacher, *words, "--out=a"]) == 0
    assert main(["reinforce", "--recipe=r.yaml", *words, "--out=b"]) == 0
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_other_teachers_or_weights_are_refused_by_name(source, uris, tmp_path):
    run(source, uris, tmp_path / "plus")
    with pytest.raises(LabellingError, match=rf"\({uris[0]}'s weight, {uris[1]}'s weight differ\)"):
        run(source, uris, tmp_path / "plus", weights=(2.0, 1.0))
    with pytest.raises(LabellingError, match=r"\(teachers, 1 and not 2, differ\)"):
        run(source, uris[:1], tmp_path / "plus")
    warmer = tuple(replace(member, temperature=2.0) for member in spec_of(uris, source).members)
    with pytest.raises(LabellingError, match=rf"\({uris[0]}'s temperature, {uris[1]}'s temperature differ"):
        label_source(source, EnsembleSpec(members=warmer), POLICY, LabelSettings(**SMALL), tmp_path / "plus")
    assert run(source, uris, tmp_path / "plus", weights=(5.0, 5.0), views=6).views == 6


def test_teacher_size_sets_all(source, photos, colour_teacher, tmp_path):
    (Path(os.environ["PYTHONPATH"]) / "any_size.py").write_text(
        "from colour_teacher import classes, look as quick\n\ndef look(views): return quick(views)\n\n"
        "look.classes = classes\n"
    )
    words = ["--source", f"folder:{photos}", "--teacher", colour_teacher, "--teacher=python:any_size:look"]
    out = tmp_path / "plus"
    assert main(["reinforce", *words, "--teacher-size=20", "--views=1", "--k=2", "--workers=0", "--out", str(out)]) == 0
    assert [said["size"] for said in open_reinforcement(out).card.teachers] == [20, 20]


def test_verify_asks_all_of_them_again_and_says_which_are_away(source, photos, uris, tmp_path, capsys):
    run(source, uris, tmp_path / "plus", weights=(2.0, 1.0))
    words = ["verify", str(tmp_path / "plus"), "--source", f"folder:{photos}"]
    assert main(words) == 0
    assert "teacher: 96 views asked again, total-variation distance 0.0" in capsys.readouterr().out
    card = json.loads((tmp_path / "plus" / "reinforcement.json").read_text())
    moved = Path(os.environ["PYTHONPATH"]) / "moved_teacher.py"
    (Path(os.environ["PYTHONPATH"]) / "narrow_teacher.py").rename(moved)
    _forget("narrow_teacher")
    assert main(words) == 0
    assert "teachers: 1 of 2 away, none asked again (python:narrow_teacher:look: cannot" in capsys.readouterr().out
    assert main([*words, "--teacher", card["teachers"][0]["uri"], "--teacher=python:moved_teacher:look"]) == 0
    assert "96 views asked again" in capsys.readouterr().out
    assert main([*words, "--teacher=python:moved_teacher:look", "--teacher", card["teachers"][0]["uri"]]) == 2
    assert "is not the teacher that made" in capsys.readouterr().err
    assert main([*words, "--teacher=python:moved_teacher:look"]) == 2
    assert "1 named, but 2 made" in capsys.readouterr().err


def _forget(module):
    import importlib
    import sys

    sys.modules.pop(module, None)
    importlib.invalidate_caches()


def test_the_spec_to_ask_again_is_that_of_the_card(source, uris, tmp_path):
    store = run(source, uris, tmp_path / "plus", weights=(2.0, 1.0))
    opened = teacher_of(store).open()
    assert opened.describe() == tuple(dict(said) for said in store.card.teachers)
    with pytest.raises(SettingsError, match=f"in this order: --teacher {uris[0]} --teacher {uris[1]}"):
        teacher_of(store, [uris[1]])


def test_a_member_that_names_no_classes_is_asked_again_too(source, photos, colour_teacher, tmp_path, capsys):
    (Path(os.environ["PYTHONPATH"]) / "nameless.py").write_text(
        NARROW_TEACHER.replace(", look.classes", "").replace('16, ("red", "blue", "green")', "16")
    )
    run(source, [colour_teacher, "python:nameless:look"], tmp_path / "plus")
    assert main(["verify", str(tmp_path / "plus"), "--source", f"folder:{photos}"]) == 0
    assert "96 views asked again" in capsys.readouterr().out


def test_two_functions_of_one_file_are_warned_of(source, colour_teacher, tmp_path, capsys):
    module = Path(os.environ["PYTHONPATH"]) / "twins.py"
    module.write_text("from colour_teacher import look as one\n\ndef other(views): return one(views)\n\n")
    with module.open("a") as file:
        file.write("def third(views): return one(views)\n\nother.size = third.size = 24\n")
    run(source, ["python:twins:other", "python:twins:third"], tmp_path / "plus")
    error = capsys.readouterr().err
    assert "warning: python:twins:other and python:twins:third come from one file" in error

"""The card: read back equal, strict, and refusing what it does not know."""

import dataclasses
import json

import pytest

from buttress.errors import StoreError
from buttress.files import json_bytes
from buttress.store.card import PartEntry, json_digest, settings_digest
from buttress.store.card_file import CARD_NAME, read_card
from buttress.store.damage import DamageError
from buttress.store.reader import open_reinforcement
from buttress.store.verify import check_integrity

from .small_store import LABELLING, POLICY, RENDERER, TEACHER, Plan


@pytest.fixture
def folder(tmp_path):
    return Plan(5, 4, bad=(2,)).write(tmp_path / "photos+", (3,), (2,))


def reseal(folder, change):
    """Change the card as an attacker would, its digest too."""
    path = folder / CARD_NAME
    value = json.loads(path.read_text())
    change(value)
    del value["digest"]
    try:
        path.write_bytes(json_bytes({**value, "digest": json_digest(value)}))
    except ValueError:  # what canonical JSON cannot say
        path.write_text(json.dumps({**value, "digest": "0" * 64}))


def part(block, rows, views):
    return PartEntry(name=f"part-{block:05d}-v{views[0]:04d}", rows=rows, views=views, sha256="0" * 64)


def test_a_card_reads_back_equal(folder):
    card = read_card(folder)
    assert (folder / CARD_NAME).read_bytes() == json_bytes(card.to_json())
    assert card.policy == POLICY
    assert card.skipped == ("bad 2.jpg",)
    assert [entry.name for entry in card.parts] == [
        "part-00000-v0000",
        "part-00000-v0002",
        "part-00001-v0000",
        "part-00001-v0002",
    ]
    assert card.source.count == 5
    assert card.fields[0].codec == "topk-log8"


def test_a_missing_card_says_how_to_finish(tmp_path):
    with pytest.raises(StoreError, match=r"no reinforcement here.*run the same buttress reinforce command again"):
        open_reinforcement(tmp_path)


def test_a_newer_format_is_refused_by_name(folder):
    reseal(folder, lambda value: value.update(version=2))
    with pytest.raises(StoreError, match=r"reinforcement\.json: format 2 is newer.*install a newer buttress"):
        open_reinforcement(folder)


def test_a_changed_value_is_refused(folder):
    path = folder / CARD_NAME
    path.write_text(path.read_text().replace('"seed": 5', '"seed": 6'))
    with pytest.raises(DamageError, match=r"reinforcement\.json: digest: .*changed or damaged"):
        open_reinforcement(folder)


def test_an_unknown_codec_is_refused_by_name_only_when_its_field_is_asked_for(folder):
    reseal(folder, lambda value: value["fields"][0].update(codec="topk-log6"))
    reinforcement = open_reinforcement(folder)
    assert len(reinforcement.hard_labels) == 5
    with pytest.raises(StoreError, match="'topk-log6' version 1; this version of buttress reads 'topk-log8'"):
        reinforcement.codec  # noqa: B018
    assert any("topk-log6" in problem.what for problem in check_integrity(folder).problems)


def test_a_field_that_nobody_asks_for_may_have_any_codec(folder):
    extra = {
        "name": "map",
        "codec": "zfp",
        "version": 9,
        "dtype": "uint8",
        "shape": [4],
        "per": "sample",
        "teacher": None,
    }
    reseal(folder, lambda value: value["fields"].append(extra))
    open_reinforcement(folder).target(0, 0)


HOSTILE = {
    "unknown key": lambda v: v.update(extra=1),
    "missing key": lambda v: v.pop("seed"),
    "bool for int": lambda v: v.update(views=True),
    "huge views": lambda v: v.update(views=2**70),
    "negative seed": lambda v: v.update(seed=-1),
    "no views": lambda v: v.update(views=0),
    "k above C": lambda v: v.update(k=99),
    "class twice": lambda v: v.update(classes=["a"] * 7),
    "classes of numbers": lambda v: v.update(classes=[1] * 7),
    "no classes": lambda v: v.update(classes=[]),
    "field twice": lambda v: v.update(fields=v["fields"][:1] * 2),
    "shape negative": lambda v: v["fields"][0].update(shape=[-1]),
    "part outside": lambda v: v["parts"][0].update(name="../../etc/passwd"),
    "part absolute": lambda v: v["parts"][0].update(name="/etc/part-00000-v0000"),
    "part with newline": lambda v: v["parts"][0].update(name="part-00000-v0000\n"),
    "part of other digits": lambda v: v["parts"][0].update(name="part-0000\u0660-v0000"),
    "part missing": lambda v: v["parts"].pop(1),
    "part twice": lambda v: v["parts"].insert(1, v["parts"][0]),
    "parts out of order": lambda v: v["parts"].reverse(),
    "no parts": lambda v: v.update(parts=[]),
    "rows backwards": lambda v: v["parts"][0].update(rows=[3, 0]),
    "rows huge": lambda v: v["parts"][-1].update(rows=[3, 2**40]),
    "rows a float": lambda v: v["parts"][0].update(rows=[0, 3.0]),
    "sha of other length": lambda v: v["parts"][0].update(sha256="00"),
    "count too large": lambda v: v["source"].update(count=6),
    "count none": lambda v: v["source"].update(count=0),
    "M above count": lambda v: v["source"].update(rows=6),
    "policy of nothing": lambda v: v.update(policy={}),
    "policy of lists": lambda v: v["policy"].update(ops=[[[]]]),
    "policy op of other types": lambda v: v["policy"]["ops"][0].update(scale=[{}, []]),
    "teachers of numbers": lambda v: v.update(teachers=[1]),
    "half a surrogate pair": lambda v: v.update(skipped=["\ud800"]),
    "infinity": lambda v: v["labelling"].update(batch=float("1e999")),
    "another format": lambda v: v.update(format="zip"),
    "version 0": lambda v: v.update(version=0),
    "version true": lambda v: v.update(version=True),
    "version a list": lambda v: v.update(version=[1]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_R5_hostile_cards_are_refused(folder, name):
    reseal(folder, HOSTILE[name])
    with pytest.raises(StoreError, match=r"reinforcement\.json"):
        open_reinforcement(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b"[" * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_R5_cards_that_are_no_cards_are_refused(folder, data):
    (folder / CARD_NAME).write_bytes(data)
    with pytest.raises(DamageError, match=r"reinforcement\.json"):
        open_reinforcement(folder)


@pytest.mark.parametrize(
    "name", [CARD_NAME, "part-00000-v0000.json", "part-00000-v0000.safetensors", "probes.safetensors"]
)
def test_R5_a_symbolic_link_is_refused(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert any(problem.file.name == name for problem in check_integrity(folder).problems)


@pytest.mark.parametrize("rows", [2, 4, 2**32 - 1])
def test_parts_must_cover_every_row_and_view_once(rows):
    plan = Plan(4, 3)
    good = [part(0, (0, 2), (0, 3)), part(1, (2, 4), (0, 2)), part(1, (2, 4), (2, 3))]
    plan.card(good, "0" * 64)
    for bad in (
        good[:2],
        good[1:],
        [good[0], good[2], good[1]],
        [good[0], part(1, (2, 4), (0, 2)), part(1, (2, 5), (2, 3))],
        [good[0], part(1, (1, 4), (0, 3))],
        [good[0], part(1, (3, 4), (0, 3))],
        [good[0], part(2, (2, 4), (0, 3))],
        [*good, part(2, (4, 5), (0, 3))],
        [good[0], part(1, (2, 4), (0, 2)), part(1, (2, 4), (1, 3))],
    ):
        with pytest.raises(StoreError, match="parts"):
            plan.card(bad, "0" * 64)
    if rows != 4:
        with pytest.raises(StoreError, match="parts"):
            plan.card(good, "0" * 64, rows=rows)


def test_the_settings_digest_follows_what_decides_the_labels_and_nothing_else():
    card = Plan(3, 2).card([part(0, (0, 3), (0, 2))], "0" * 64)
    same = dataclasses.replace(card, versions={"numpy": "3"}, skipped=("x",))
    assert same.settings_digest == card.settings_digest
    for change in ({"seed": 6}, {"labelling": {"batch": 5}}, {"teachers": ({"uri": "python:other"},)}):
        assert dataclasses.replace(card, **change).settings_digest != card.settings_digest


def test_weights_that_have_moved_are_still_the_same_teacher():
    def digest(teacher):
        return settings_digest(
            seed=0, k=2, classes=("a", "b"), policy=POLICY, renderer=RENDERER, teachers=[teacher], labelling=LABELLING
        )

    assert digest({"uri": "timm:a@/x", "weights_sha256": "1"}) == digest({"uri": "timm:a@/y", "weights_sha256": "1"})
    assert digest({"uri": "timm:a@/x", "weights_sha256": "1"}) != digest({"uri": "timm:a@/x", "weights_sha256": "2"})
    assert digest(TEACHER) != digest({**TEACHER, "uri": "python:teachers:other"})

"""`buttress inspect` as a user runs it: what it prints, its JSON and its page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from tests.conftest import COLOUR_TEACHER

from buttress.cli import main
from buttress.pages.pictures import english
from buttress.pages.views import _percent
from buttress.terminal import number

SAID = ("format", "version", "reinforcement", "source", "judged", "unknown", "views", "only_mixed", "labels")
LISTS = ("label_errors", "duplicates", "near_duplicates", "hardest", "ambiguous")


@pytest.fixture
def plus(photos, tmp_path, monkeypatch):
    """The photos with a red one among the blue ones, labelled by a teacher that is sure of its colours."""
    (tmp_path / "sure_teacher.py").write_text(COLOUR_TEACHER.replace("32.0", "8.0"))
    monkeypatch.syspath_prepend(tmp_path)
    (photos / "blue" / "[bold]<b>odd.png").write_bytes((photos / "red" / "02.png").read_bytes())
    words = ["--source", f"folder:{photos}", "--teacher", "python:sure_teacher:look", "--views", "3", "--k", "2"]
    assert main(["reinforce", *words, "--policy", "crop", "--workers", "0", "--out", str(tmp_path / "plus")]) == 0
    return tmp_path / "plus"


def test_it_prints_what_to_look_at_and_writes_it_in_full(photos, plus, tmp_path, capsys):
    capsys.readouterr()
    files = ["--json", str(tmp_path / "new" / "a.json"), "--out", str(tmp_path / "a.html")]
    assert main(["inspect", str(plus), "--source", f"folder:{photos}", *files]) == 0
    text = capsys.readouterr().out
    assert "25 of 25 samples, 3 views each" in text
    assert "label errors: 1 of 25 labels are likelier wrong than right (estimated to be wrong: 4.0%)" in text
    assert re.search(r"  blue/\[bold\]<b>odd\.png  blue   red        [01]\.\d{4}\n", text)
    assert "the very same file: 1 group, 1 of them under different labels" in text
    assert "  blue/[bold]<b>odd.png, red/02.png  blue, red" in text
    document = json.loads((tmp_path / "new" / "a.json").read_text())
    assert set(document) == {*SAID, *LISTS, "versions"}
    assert (document["views"], document["only_mixed"]) == ({"judged": 75, "mixed": 0}, [])
    assert document["labels"]["flagged"] == 1
    assert [entry["id"] for entry in document["label_errors"] if entry["flagged"]] == ["blue/[bold]<b>odd.png"]
    assert len(document["ambiguous"]) == 25
    for name in ("label_errors", "hardest", "ambiguous"):
        assert all({"id", "label", "suggested", "score"} <= set(entry) for entry in document[name])


def test_mixed_views_are_left_out_and_it_says_so(photos, plus, tmp_path, capsys):
    words = ["--source", f"folder:{photos}", "--teacher", "python:sure_teacher:look", "--views", "3", "--k", "2"]
    mixed = [*words, "--policy", "small-mix", "--workers", "0", "--out", str(tmp_path / "mix+")]
    assert main(["reinforce", *mixed]) == 0
    capsys.readouterr()
    files = ["--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "a.html")]
    assert main(["inspect", str(tmp_path / "mix+"), "--source", f"folder:{photos}", *files]) == 0
    document = json.loads((tmp_path / "a.json").read_text())
    views, only_mixed = document["views"], document["only_mixed"]
    assert views["judged"] + views["mixed"] == 75
    assert views["mixed"] > 40
    assert only_mixed
    assert document["judged"] == 25 - len(only_mixed)
    assert {entry["id"] for entry in document["ambiguous"]}.isdisjoint(only_mixed)
    text, page = capsys.readouterr().out, Page((tmp_path / "a.html").read_text()).text
    assert f"{views['mixed']} of 75 views are mixed with another image: the others are judged" in text
    assert f"{number(len(only_mixed), 'sample')} without any other view, so not judged (e.g. {only_mixed[0]})" in text
    assert f"{views['mixed']} of the 75 views are mixed with another image" in page
    assert f"{number(len(only_mixed), 'image')} ha" in page
    assert f" no other view, so not judged: {only_mixed[0]}" in page


class Page(HTMLParser):
    """Tags of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_every_entry_and_stands_alone(photos, plus, tmp_path, capsys):
    words = ["inspect", str(plus), "--source", f"folder:{photos}", "--top", "4", "--samples", "2"]
    assert main([*words, "--out", str(tmp_path / "a.html"), "--json", str(tmp_path / "a.json")]) == 0
    text = (tmp_path / "a.html").read_text()
    page = Page(text)
    assert page.open == []
    assert not [attributes for _, attributes in page.tags if {"src", "action"} & set(attributes)]
    assert "b" not in {tag for tag, _ in page.tags}
    (said,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    data = json.loads(said)
    document = json.loads((tmp_path / "a.json").read_text())
    for name in ("hardest", "ambiguous"):
        shown = [data["samples"][number]["id"] for entry in data["lists"][name] for number in entry["samples"]]
        assert shown == [entry["id"] for entry in document[name]]
    (pair,) = data["lists"]["duplicates"]
    assert [data["samples"][number]["id"] for number in pair["samples"]] == ["blue/[bold]<b>odd.png", "red/02.png"]
    assert pair["mixed_labels"]
    assert data["samples"][0]["id"] == "blue/[bold]<b>odd.png"
    assert data["samples"][0]["flagged"]
    assert f"a.html: {len(data['samples'])} of 25 samples, " in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "b.html")]) == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_images_without_labels_are_counted_and_renamed_ones_named(photos, plus, tmp_path, capsys):
    (photos / "red" / "02.png").rename(photos / "red" / "first.png")
    capsys.readouterr()
    files = ["--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "a.html")]
    assert main(["inspect", str(plus), "--source", f"folder:{photos}", *files]) == 0
    text = capsys.readouterr().out
    assert f"1 sample not in {plus}: 1 of 1 were renamed (the same bytes are stored under other ids, e.g. " in text
    assert json.loads((tmp_path / "a.json").read_text())["unknown"] == 1
    assert "1 is not in the reinforcement" in (tmp_path / "a.html").read_text()


def test_the_page_reads_for_people():
    assert [_percent(one).replace("\xa0", " ") for one in (0.0, 0.0001, 0.25, 0.9996, 1.0)] == [
        "0.0 %",
        "< 0.1 %",
        "25.0 %",
        "> 99.9 %",
        "100.0 %",
    ]
    assert (english("n03445777"), english("red")) == ("golf ball", "red")


def test_near_duplicates_are_left_out_where_nobody_wants_them(photos, plus, tmp_path, capsys):
    words = ["inspect", str(plus), "--source", f"folder:{photos}", "--no-near-duplicates"]
    assert main([*words, "--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "a.html")]) == 0
    assert "the same picture" not in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["near_duplicates"] is None
    assert 'data-list="near_duplicates"' not in (tmp_path / "a.html").read_text()


def test_a_teacher_that_is_a_run_comes_with_a_warning(photos, tmp_path, capsys):
    train = ["train", "--model", "timm:test_vit", "--data", f"folder:{photos}", "--size", "32", "--epochs", "1"]
    assert main([*train, "--batch", "8", "--workers", "0", "--out", str(tmp_path / "run")]) == 0
    reinforce = ["reinforce", "--source", f"folder:{photos}", "--teacher", f"run:{tmp_path / 'run'}", "--views", "1"]
    assert main([*reinforce, "--k", "2", "--workers", "0", "--out", str(tmp_path / "plus")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "plus"), "--source", f"folder:{photos}"]) == 0
    assert "learnt by heart" in capsys.readouterr().err


def test_misuse_is_told_in_one_line(photos, plus, tmp_path, capsys, monkeypatch):
    source = ["--source", f"folder:{photos}"]
    monkeypatch.setattr("buttress.pages.views.find_spec", lambda _: None)
    cases = [
        ([str(plus)], "--source is required"),
        ([str(plus), *source, "--json", str(photos)], f"--json {photos}: is a folder"),
        ([str(plus), *source, "--top", "0"], "--top 0"),
        ([str(plus), *source, "--samples", "0"], "--samples 0"),
        ([str(tmp_path / "no"), *source], "no reinforcement here"),
        ([str(plus), *source, "--out", str(tmp_path / "a.html")], "pip install buttress[demo]"),
    ]
    for words, expected in cases:
        capsys.readouterr()
        assert main(["inspect", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert expected in error

"""The demo's page: self-contained, and every figure on it out of the results."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from buttress.pages.demo import headline, write_demo_report
from buttress.pages.text import byte_count, duration


def reliability(tilt):
    """Fifteen bins, the first three empty."""
    edges = np.linspace(0, 1, 16)
    return [
        {
            "low": float(low),
            "high": float(high),
            "count": 0 if low < 0.2 else int(1000 * low),
            "confidence": float((low + high) / 2),
            "accuracy": float(min(1, (low + high) / 2 * tilt)),
        }
        for low, high in pairwise(edges)
    ]


def row(name, title, top1, ece, nll):
    """A row of the table."""
    figures = {
        "top1": {"mean": top1, "sd": 0.0123},
        "ece": {"mean": ece, "sd": 0.0045},
        "nll": {"mean": nll, "sd": 0.06},
    }
    risk = {"coverage": [0.5, 1.0], "risk": [(1 - top1) / 3, 1 - top1]}
    return {"name": name, "title": title, **figures, "reliability": reliability(1 - ece), "risk_coverage": risk}


@pytest.fixture
def results():
    """What `results.json` holds, with figures that are easy to find again."""
    return {
        "command": "buttress demo --out demo",
        "rows": [
            row("raw", "the labels, 20 % wrong", 0.8642, 0.2013, 0.6543),
            row("reinforced", "reinforced", 0.9171, 0.0409, 0.2987),
            row("clean", "the labels, none wrong", 0.9333, 0.0311, 0.2111),
        ],
        "gain": {"top1": 0.0529, "nll": -0.3556, "ece": -0.1604, "clean_top1": 0.0691, "holds": True},
        "data": {"train": 300, "planted": 60, "test": 797},
        "teacher": {"name": "timm:teacher", "top1": 0.9777},
        "student": {"model": "timm:<student>", "seeds": [0, 1, 2], "steps": 1234},
        "store": {"bytes": 123456, "samples": 300, "views": 16, "stride": 15},
        "seconds": [
            {"part": "teacher trained", "seconds": 31.4},
            {"part": "labelled", "seconds": 2.25},
            {"part": "nine students", "seconds": 131.0},
        ],
        "setup": {"policy": "crop", "seed": "0"},
        "versions": {"buttress": "0.1.0", "torch": "2.6.0"},
        "views": [
            {
                "id": f"id-{i}",
                "view": i,
                "label": "8",
                "truth": "3",
                "planted": i % 2 == 0,
                "top": [
                    {"name": "3", "probability": 0.9012},
                    {"name": "8", "probability": 0.0511},
                    {"name": "5", "probability": 0.0202},
                ],
            }
            for i in range(4)
        ],
    }


@pytest.fixture
def images(results):
    """A small picture for every view."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (16, 16, 3), np.uint8) for _ in results["views"]]


class Elements(HTMLParser):
    """Tags with their attributes, and whether every tag is closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_shows_every_figure_of_the_results(results, images, tmp_path):
    write_demo_report(results, images, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for figure in (
        "+5.3 points",
        "86.4",
        "20.1",
        "0.654",
        "91.7",
        "4.1",
        "0.299",
        "93.3",
        "97.8",
        "1.2",
        "0.5",
        "0.060",
    ):
        assert figure in page
    for text in (
        "300",
        "60 of them",
        "797",
        "1,234",
        "120.6 KiB",
        "16 views",
        "15 bytes per view",
        "31 s",
        "2 min 11 s",
    ):
        assert text in page
    for text in ("buttress demo --out demo", "policy", "torch 2.6.0", "timm:teacher", "90.1 %", "5.1 %", "2.0 %"):
        assert text in page


def test_the_page_asks_nothing_of_the_network(results, images, tmp_path):
    write_demo_report(results, images, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    elements = Elements(page)
    assert elements.open == []
    assert not {tag for tag, _ in elements.found} & {"script", "iframe", "object", "embed", "audio", "video"}
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert "@import" not in page
    assert not re.search(r"url\((?!['\"]?#)", page)
    assert sum(tag == "img" for tag, _ in elements.found) == len(images)


def test_names_are_escaped(results, images, tmp_path):
    results["views"][0]["id"] = '"><script>alert(1)</script>'
    results["rows"][0]["title"] = "<b>&"
    write_demo_report(results, images, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "timm:&lt;student&gt;" in page


def test_a_planted_label_is_marked_and_a_right_one_is_not(results, images, tmp_path):
    results["views"][1]["label"] = "3"
    write_demo_report(results, images, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("planted, is 3") == 2
    assert '<strong class="bad">8</strong>' in page
    assert "<strong>3</strong>" in page


def test_without_gain_the_page_says_so(results, images, tmp_path):
    results["gain"] = {"top1": -0.004, "nll": 0.1, "ece": 0.0, "clean_top1": None, "holds": False}
    write_demo_report(results, images, tmp_path / "report.html")
    assert "No gain here: top-1 changes by -0.4 points" in (tmp_path / "report.html").read_text()
    assert headline({"top1": 0.0529, "holds": True}) == "+5.3 points of top-1 from the same images"


def test_the_same_results_give_the_same_bytes(results, images, tmp_path):
    for name in ("a.html", "b.html"):
        write_demo_report(copy.deepcopy(results), images, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_sizes_and_times_are_readable():
    assert byte_count(1023) == "1,023 bytes"
    assert byte_count(1536) == "1.5 KiB"
    assert byte_count(3 * 1024**3) == "3.0 GiB"
    assert duration(1.25) == "1.2 s"
    assert duration(119.6) == "120 s"
    assert duration(185.0) == "3 min 5 s"


def test_every_way_to_train_has_its_curves(results, images, tmp_path):
    write_demo_report(results, images, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count('aria-label="reliability diagram"') == 3
    assert page.count('aria-label="risk by coverage"') == 1
    legend = re.search(r'<p class="legend">(.*?)</p>', page, re.DOTALL)
    assert legend is not None
    assert re.findall(r'class="key s(\d)">(\w)</b>&nbsp;([^<]*)', legend[1]) == [
        ("1", "A", "the labels, 20 % wrong"),
        ("2", "B", "reinforced"),
        ("3", "C", "the labels, none wrong"),
    ]


def test_the_page_fits_a_phone(results, images, tmp_path, open_page):
    results["rows"][0]["title"] = "a_title_without_any_place_to_break_it_" * 3
    write_demo_report(results, images, tmp_path / "report.html")
    page = open_page(tmp_path / "report.html", (390, 844))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.inner_text("h1").startswith("+5.3 points")

"""The browser of views, in a real browser: what it shows first, what can be chosen, and what odd data do to it."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from tests.conftest import COLOUR_TEACHER
from tests.pages.conftest import PHONE

from buttress.commands.inspect import _document
from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.metrics.health import examine
from buttress.pages.thumbnails import BUDGET, VIEWS, Thumbnails, _encoded
from buttress.pages.views import write_views_page
from buttress.sources import ArraySource, UndecodableImage
from buttress.store.reader import open_reinforcement
from buttress.teachers.teacher import TeacherSpec
from buttress.views.presets import preset

ODD = "<script>alert(1)</script>"
CLASSES = (ODD, "green", "red")
WRONG, SPOILT, UNLABELLED, UNKNOWN = (2, 10, 15), 5, 7, 24


class Photos(ArraySource):
    """25 noisy pictures of one colour each; that of `SPOILT` cannot be decoded once it is spoilt."""

    def __init__(self, count):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 120, (25, 30, 40, 3), np.uint8)
        labels = np.arange(25) % 3
        images[np.arange(25), :, :, 2 - labels] += 90
        labels[list(WRONG)] = (labels[list(WRONG)] + 1) % 3
        labels[UNLABELLED] = -1
        ids = [f"{CLASSES[number % 3]}/{number:02d}.png" for number in range(25)]
        super().__init__(images[:count], labels[:count], ids=ids[:count], classes=CLASSES, uri="photos & more")
        self.spoilt, self.read = False, []

    def __getitem__(self, index):
        self.read.append(index)
        if self.spoilt and index == SPOILT:
            raise UndecodableImage("spoilt")
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def label(tmp_path_factory):
    """`label(policy)`: a reinforcement of the first 24 photos, 8 views each, by a sure teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    text = COLOUR_TEACHER.replace("32.0", "8.0").replace('"blue"', repr(ODD))
    (folder / "page_teacher.py").write_text(text)
    sys.path.insert(0, str(folder))

    def label_photos(policy):
        spec = TeacherSpec(uri="python:page_teacher:look", source_classes=CLASSES)
        settings = LabelSettings(views=8, k=2, workers=0)
        label_source(Photos(24), spec, preset(policy), settings, folder / policy)
        return open_reinforcement(folder / policy)

    yield label_photos
    sys.path.remove(str(folder))


def write(store, path, *, samples=1000, top=50, photos=None):
    photos = photos or Photos(25)
    photos.spoilt = True
    health = examine(photos, store)
    document = _document(health, top, near=False)
    photos.read.clear()
    write_views_page(document, health, top, samples, path)
    return document


def blocks(path):
    """What was said of the samples, and the pictures of each."""
    found = re.findall(r'<script type="application/json" id="[^"]*">(.*?)</script>', path.read_text(), re.DOTALL)
    assert not re.search("[<>]", "".join(found))  # nothing that a browser could take for the end of a block
    data, *pictures = map(json.loads, found)
    return data, [sample for block in pictures for sample in block]


@pytest.fixture(scope="module")
def made(label, tmp_path_factory):
    """The page, and the JSON of `buttress inspect` that it was made from."""
    path = tmp_path_factory.mktemp("page") / "views.html"
    return path, write(label("crop"), path)


def ids(page):
    return page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.id)")


def test_the_likeliest_wrong_labels_come_first(made, open_page):
    path, document = made
    page = open_page(path)
    wrong = [entry["id"] for entry in document["label_errors"] if entry["flagged"]]
    assert len(wrong) == 3
    assert ids(page)[:3] == wrong
    assert len(ids(page)) == 25
    assert page.locator(".card.flagged").count() == 3
    assert page.inner_text("#status") == "Showing 25 of 25 samples"
    page.click('[data-list="label_errors"]')
    assert ids(page) == wrong
    assert page.is_visible('[data-intro="label_errors"]')
    assert "3 of 23 labels are likelier wrong than right" in page.inner_text('[data-intro="label_errors"]')


def test_sorting_filtering_and_search(made, open_page):
    path, document = made
    data, _ = blocks(path)
    page = open_page(path)
    page.select_option("#sort", "id")
    page.wait_for_function("location.hash === '#sort=id'")
    assert ids(page) == sorted(sample["id"] for sample in data["samples"])
    page.select_option("#sort", "entropy")
    page.wait_for_function("location.hash === '#sort=entropy'")
    assert ids(page)[:24] == [entry["id"] for entry in document["ambiguous"]]
    for control, key in (("#label", "label"), ("#teacher", "teacher")):
        page.select_option(control, "green")
        page.wait_for_function(f"location.hash.includes('{key}=green')")
        green = [sample for sample in data["samples"] if class_of(data, sample, key) == "green"]
        assert set(ids(page)) == {sample["id"] for sample in green}
        assert page.inner_text("#status") == f"Showing {len(green)} of 25 samples"
        assert f"green ({len(green)})" in page.inner_text(control)
        page.click("button[type=reset]")
    page.check("#flagged")
    page.wait_for_function("document.querySelectorAll('.card').length === 3")
    page.fill("#search", "RED/")
    page.wait_for_function("location.hash.includes('q=')")
    flagged = [entry["id"] for entry in document["label_errors"] if entry["flagged"]]
    assert ids(page) == [one for one in flagged if one.startswith("red/")]
    assert len(ids(page)) == 1


def class_of(data, sample, key):
    number = sample["label"] if key == "label" else sample.get("top", [[None]])[0][0]
    return None if number is None else data["names"][number][0]


def test_a_sample_opens_and_closes_by_keyboard_and_an_address_shows_it_again(made, open_page):
    path, _ = made
    page = open_page(path)
    page.select_option("#sort", "id")
    page.wait_for_function("location.hash === '#sort=id'")
    first, second = ids(page)[:2]
    page.focus(".card a")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.inner_text("#detail-id") == first
    assert page.locator(".each li").count() == VIEWS
    assert "6 of 8 views" in page.inner_text("#detail-body")
    loaded = "[...document.querySelectorAll('dialog img')].every(image => image.complete && image.naturalWidth)"
    page.wait_for_function(loaded)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"document.getElementById('detail-id').textContent === {json.dumps(second)}")
    address = page.evaluate("location.hash")
    page.keyboard.press("Escape")
    page.wait_for_function("location.hash === '#sort=id'")
    assert not page.locator("dialog[open]").count()
    page.evaluate(f"location.hash = {json.dumps(address)}")
    page.wait_for_selector("dialog[open]")
    page.reload()
    assert page.inner_text("#detail-id") == second
    assert page.input_value("#sort") == "id"
    page.evaluate("location.hash = '#list=none&sort=none&label=none&open=gone'")
    page.wait_for_function("!document.querySelector('dialog[open]')")
    assert page.inner_text("#status") == "Showing 25 of 25 samples. gone is not on this page."


def test_odd_samples_are_shown_and_names_are_text(made, open_page):
    path, _ = made
    page = open_page(path)
    texts = dict(zip(ids(page), page.locator(".card").all_inner_texts(), strict=True))
    of = {int(re.findall(r"(\d+)\.png", one)[0]): text for one, text in texts.items()}
    assert of[SPOILT].count("no picture") == 4
    assert "no label" in of[UNLABELLED]
    assert "Not judged: not in the reinforcement." in of[UNKNOWN]
    assert "label: <script>alert(1)</script>" in of[3]
    assert ODD in page.inner_text(".balance")
    assert page.locator("h1").inner_text() == "photos & more"


def test_without_labels_entropy_comes_first_and_nothing_can_be_flagged(label, tmp_path, open_page):
    photos = Photos(24)
    photos.labels[:] = -1
    document = write(label("crop"), tmp_path / "bare.html", photos=photos)
    page = open_page(tmp_path / "bare.html")
    assert page.input_value("#sort") == "entropy"
    assert ids(page) == [entry["id"] for entry in document["ambiguous"]]
    assert not page.is_visible("#flagged")
    assert page.locator("[data-list=label_errors]").count() == 0
    assert "Labels are not judged, for no sample has a label." in page.inner_text('[data-intro="all"]')


@pytest.mark.parametrize("address", ["", "#open=red%2F02.png", "#list=duplicates"])
def test_a_phone_does_not_scroll_sideways(made, open_page, address):
    path, _ = made
    page = open_page(path, size=PHONE)
    page.evaluate(f"location.hash = '{address}'")
    page.wait_for_function(f"location.hash === '{address}'")
    page.evaluate("document.querySelector('.overview').open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    assert page.evaluate("document.getElementById('detail').scrollWidth") <= PHONE[0]


def test_dark_differs_from_light(made, open_page):
    path, _ = made
    colours = {open_page(path, dark=dark).evaluate("getComputedStyle(document.body).color") for dark in (False, True)}
    assert len(colours) == 2


def test_the_worst_come_along_with_what_stands_in_a_list(label, tmp_path, capsys):
    photos = Photos(25)
    document = write(label("crop"), tmp_path / "few.html", samples=2, top=5, photos=photos)
    data, pictures = blocks(tmp_path / "few.html")
    shown = [sample["id"] for sample in data["samples"]]
    errors = [entry["id"] for entry in document["label_errors"]]
    listed = {entry["id"] for name in ("hardest", "ambiguous") for entry in document[name]}
    assert shown[:3] == errors[:3]
    assert set(shown) == {*errors[:3], *listed}
    assert f"The page shows {len(shown)} of 25 samples" in (tmp_path / "few.html").read_text()
    assert f"{len(shown)} of 25 samples" in capsys.readouterr().err
    assert sorted(photos.read) == sorted(photos.ids.index(one) for one in shown)  # each is read once
    assert [len(one) for one in pictures] == [1 + VIEWS] * len(shown)


def test_mixed_views_are_drawn_with_their_partner_or_left_out(label, tmp_path):
    store = label("small-mix")
    write(store, tmp_path / "mix.html")
    data, _ = blocks(tmp_path / "mix.html")
    views = [view for sample in data["samples"] for view in sample["views"]]
    known = {sample["id"] for sample in data["samples"]}
    assert {view["mixed"] for view in views} - {None} <= known
    assert 0 < sum(view["mixed"] is None for view in views) < len(views)
    for sample in data["samples"]:
        order = [(view["mixed"] is not None, view["view"]) for view in sample["views"]]
        assert order == sorted(order)  # those that count come first
    some = Photos(12)  # the partners of most views are not among these
    thumbnails = Thumbnails(some, store, examine(some, store).coverage)
    drawn = [thumbnails.draw(place)[1] for place in range(12)]
    assert min(map(len, drawn)) < VIEWS
    assert all(view.picture and (view.partner is None or view.partner < 12) for one in drawn for view in one)


def test_pictures_keep_to_their_budget():
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(5)]
    sizes = [len(one or "") for one in _encoded(noise)]
    assert all(sizes)
    assert sum(sizes) * 3 / 4 <= BUDGET
    assert _encoded([None, *noise[:1]])[0] is None

"""The page of `buttress report`: what it shows is what the documents say, and what it cannot show it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.pages.conftest import PHONE, OpenPage
from tests.pages.documents import costs, evaluation, figure, make_run, write

from buttress.cli import main
from buttress.errors import SettingsError
from buttress.files import write_json
from buttress.pages.corruptions import differences, heat_map
from buttress.pages.entry import Selection, read_entries
from buttress.pages.evaluation import Figure, read_evaluation
from buttress.pages.kinds import KINDS, short, short_bytes, short_seconds
from buttress.pages.origin import resume_command, train_command
from buttress.pages.plots import Point
from buttress.pages.report import headline, page_content, write_report
from buttress.pages.scatters import pareto_front
from buttress.pages.table import best_of, comparable, difference, difference_text, summary_rows
from buttress.sources import fingerprint, open_source


def read(tmp_path: Path, *documents: Any) -> Selection:
    """The selection of some documents, written as a.json, b.json, ..."""
    return read_entries([write(tmp_path / f"{'abcdefgh'[i]}.json", each) for i, each in enumerate(documents)])


def cells(selection: Selection, key: str) -> list[Any]:
    """The cells of one row of the summary."""
    groups = summary_rows(selection.entries, selection.baseline)
    return next(list(row.cells) for _, rows in groups for row in rows if row.key == key)


def page_of(selection: Selection, out: Path) -> str:
    """The page as text."""
    write_report(selection, out)
    return out.read_text()


def told(value: float, half: float | None = None) -> Figure:
    ends = (None, None) if half is None else (value - half, value + half)
    return Figure(value=value, count=100, low=ends[0], high=ends[1])


def test_a_difference_is_of_independent_intervals():
    found = difference(KINDS["top1"], told(0.8, 0.03), told(0.7, 0.04))
    assert found is not None and found.low is not None and found.high is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.05, 0.15))
    assert found.clear
    assert difference_text(KINDS["top1"], found).replace("\xa0", " ") == "+10.0 [+5.0, +15.0]"
    near = difference(KINDS["top1"], told(0.73, 0.03), told(0.7, 0.04))
    assert near is not None and not near.clear
    without = difference(KINDS["ece"], told(0.1), told(0.2, 0.01))
    assert without is not None and (without.low, without.clear) == (None, False)
    assert difference_text(KINDS["ece"], without) == "\N{MINUS SIGN}10.0"
    factor = difference(KINDS["macs"], told(50.0), told(200.0))
    assert factor is not None and difference_text(KINDS["macs"], factor).endswith("0.25")
    assert difference(KINDS["macs"], told(50.0), told(0.0)) is None


def test_the_best_is_the_highest_or_the_lowest_and_only_among_the_same_images(tmp_path):
    other = evaluation("timm:other", 0.99)
    other["data"]["fingerprint"] = "0" * 64
    selection = read(tmp_path, evaluation("timm:low", 0.6), evaluation("timm:high", 0.7), other)
    for key, best in (("top1", "B"), ("nll", "B"), ("ece", "A"), ("corruption_error", "B")):
        assert best_of(KINDS[key], selection.entries, selection.baseline) == {best}, key
    assert best_of(KINDS["top5"], selection.entries, selection.baseline) == set()  # all the same
    assert [cell.best for cell in cells(selection, "top1")] == [False, True, False]
    assert [cell.note for cell in cells(selection, "top1")] == ["", "", "other images or classes"]
    assert [bool(cell.difference) for cell in cells(selection, "top1")] == [False, True, False]
    assert [cell.verdict for cell in cells(selection, "nll")] == ["", "good", ""]


def test_corrupted_images_are_only_compared_under_one_seed_and_number(tmp_path):
    seed, fewer = evaluation("timm:seed"), evaluation("timm:fewer")
    seed["settings"]["seed"], fewer["settings"]["corruption_samples"] = 1, 10
    base, one, two, same = read(tmp_path, evaluation("timm:base"), seed, fewer, evaluation("timm:same", 0.8)).entries
    kind = KINDS["corruption_error"]
    assert [comparable(kind, each, base) for each in (one, two, same)] == [False, False, True]
    assert comparable(KINDS["top1"], one, base)
    others, rows = differences([base, one, two, same], base)
    assert [each.name for each in others] == ["same"]
    # (0.8 - 0.7) of the clean images, of which severity takes off a fifth on the average.
    assert {cell.text for _, (cell,) in rows} == {"+8.0"}
    assert rows[-1][0] == "mean of the common 15"


def test_a_heat_map_has_all_corruptions_and_their_means(tmp_path):
    (entry,) = read(tmp_path, evaluation("timm:a", 0.5)).entries
    found = heat_map(entry)
    assert found is not None
    assert [(title, len(rows)) for title, rows in found.groups] == [("the common 15", 15), ("extra", 4)]
    name, shades = found.groups[0][1][0]
    assert (name, [shade.text for shade in shades]) == ("gaussian noise", ["50", "45", "40", "35", "30", "40"])
    assert shades[0].strength == 0.5


def test_the_pareto_front_is_what_no_other_beats():
    def point(key: str, x: float, y: float) -> Point:
        return Point(key=key, series=1, x=x, y=y, low=None, high=None, words="")

    points = [
        point("dear", 9, 80),
        point("same x", 4, 60),
        point("mid", 4, 70),
        point("bad", 5, 65),
        point("small", 1, 50),
    ]
    assert [each.key for each in pareto_front([*points, point("late", 20, 80)])] == ["small", "mid", "dear"]


def test_the_headline_says_what_is_clear_and_what_is_not(tmp_path):
    clear = read(tmp_path, evaluation("timm:a", 0.6), evaluation("timm:b", 0.7), evaluation("timm:c", 0.65))
    assert headline(clear) == "b is 10.0 points of top-1 ahead of a"
    behind = read(tmp_path, evaluation("timm:a", 0.7), evaluation("timm:b", 0.6))
    assert headline(behind) == "a is 10.0 points of top-1 ahead of b"
    unclear = read(tmp_path, evaluation("timm:a", 0.7), evaluation("timm:b", 0.71))
    assert headline(unclear) == "No clear winner: b and a are 1.0 points of top-1 apart"
    assert headline(read(tmp_path, evaluation("timm:a", 0.7))).startswith("a: 70.0")
    assert headline(read_entries([str(make_run(tmp_path / "run"))])) == "1 model, not evaluated yet"


def test_names_are_short_and_no_two_are_the_same(tmp_path):
    (tmp_path / "other").mkdir()
    documents = {
        "a.json": "timm:net@/weights/net.safetensors",
        "b.json": "timm:net",
        "other/b.json": "timm:net",
        "c.json": "timm:lone.tag",
    }
    places = [write(tmp_path / name, evaluation(model)) for name, model in documents.items()]
    assert [each.name for each in read_entries(places).entries] == ["net (a)", places[1], places[2], "lone.tag"]


def test_numbers_are_written_in_units_that_suit_them():
    texts = [short(912), short(1240), short(999_500), short_bytes(14_000_000), short_seconds(0.0042), short_seconds(2)]
    assert [text.replace("\xa0", " ") for text in texts] == ["912", "1.24 k", "1 M", "14 MB", "4.2 ms", "2 s"]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda document: document.update(ece="good"), "ece is 'good', not a figure"),
        (lambda document: document["nll"].update(value=True), "nll.value is True, not a number"),
        (lambda document: document["top1"].update(low=0.9, high=0.1), "top1.low is above its high"),
        (lambda document: document["top1"].update(count=-1), "top1.count is -1, not a count"),
        (lambda document: document["details"].update(scales=3), "details.scales is 3, not a list of entries"),
        (lambda document: document["details"].update(confused=[{"ids": "a"}]), "details.confused.ids is 'a'"),
        (lambda document: document["details"]["corruptions"].pop("clean"), "the clean images are missing"),
        (lambda document: document["details"]["risk_coverage"].update(risk=[0.1]), "not of the same points"),
        (lambda document: document["details"]["reliability"][1].update(top1="x"), "reliability[1].accuracy is 'x'"),
        (lambda document: document["details"].update(cost=[{"variant": "eager"}]), "details.cost.batch is None"),
        (lambda document: document["details"].update(slices={}), "details.slices is {}"),
    ],
)
def test_a_part_of_the_wrong_kind_is_named_and_the_rest_is_shown(tmp_path, spoil, fault):
    document = evaluation("timm:spoilt")
    spoil(document)
    selection = read(tmp_path, document)
    (told_,) = selection.faults
    assert told_.startswith(f"{tmp_path / 'a.json'}: ") and fault in told_
    page = page_of(selection, tmp_path / "page.html")
    assert "95.0" in page  # top-5, which is whole
    assert "left out" in page


def test_what_is_unknown_is_shown_or_passed_over(tmp_path):
    document = evaluation("timm:new", unreal_top1=figure(0.8125, 0.01), strange={"colour": "blue"})
    document["details"]["slices"] = [{"name": "dark", "images": 9}, {"name": "lit", "top1": figure(0.25)}]
    document["details"]["unheard_of"] = 7
    why = "onnxruntime is not installed"
    cost = {"variant": "eager", "batch": 16, "threads": 2, "device": "cpu", "seconds": figure(0.0123, 0.001)}
    document["details"]["cost"] = [
        {**cost, "not_measured": None},
        {**cost, "variant": "channels_last", "agrees": False, "not_measured": None},
        {**cost, "seconds": figure(None), "not_measured": why},
    ]
    selection = read(tmp_path, document)
    assert selection.faults == ()
    page = page_of(selection, tmp_path / "page.html").replace("\xa0", " ")
    for text in (
        "Other figures",
        "unreal top1",
        "0.8125",
        "dark",
        "0.25",
        "12.3 ms",
        "other logits",
        f"not measured: {why}",
    ):
        assert text in page


@pytest.mark.parametrize("value", [0, -3, 1e-320, 1e299, None])
def test_a_cost_that_no_axis_can_show_is_left_out_of_the_plots(tmp_path, value):
    documents = [evaluation(f"timm:{name}", **costs(10**6, 10**8, 0.01)) for name in "abc"]
    documents[1]["macs"]["value"] = value
    selection = read(tmp_path, *documents)
    _, macs, _ = page_content(selection)["scatters"]
    assert sorted(macs.costs) == ["A", "C"]
    page_of(selection, tmp_path / "page.html")


def test_a_name_that_no_system_takes_is_one_more_fault(tmp_path):
    good = write(tmp_path / "good.json", evaluation("x" * 5000))
    selection = read_entries([good, "y" * 5000])
    assert len(selection.entries) == len(selection.faults) == 1
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    assert main(["report", good, str(tmp_path / "loop.json"), "--out", str(tmp_path / "page.html")]) == 0


def test_a_file_that_is_no_evaluation_is_refused(tmp_path):
    whole = json.dumps(evaluation("timm:a"))
    cases = {
        "half.json": (whole[:200], "not valid JSON"),
        "list.json": ("[]", "not an evaluation"),
        "run.json": ('{"format": "buttress-run", "settings": {}, "data": {}}', "not an evaluation"),
        "infinite.json": (whole.replace("0.95", "1e999"), None),
        "empty.json": ('{"details": {}, "settings": {}, "versions": {}, "data": {}}', "no figure in it"),
    }
    for name, (text, message) in cases.items():
        (tmp_path / name).write_text(text)
        if message is not None:
            with pytest.raises(SettingsError, match=message):
                read_evaluation(tmp_path / name)
    assert "not a finite number" in read_evaluation(tmp_path / "infinite.json").faults[0]


def test_runs_bring_their_training_and_say_what_was_not_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/whole"), document=evaluation("runs/whole"))
    make_run(Path("runs/plain"))
    make_run(Path("runs/half"), finished=False)
    Path("moved.json").write_text(json.dumps(evaluation("run:runs/plain", 0.9)))
    selection = read_entries(["runs/whole", "run:runs/plain", "runs/half", "moved.json"])
    assert [each.name for each in selection.entries] == ["whole", "plain (runs)", "half", "plain (moved)"]
    assert [len(each.history) for each in selection.entries] == [3, 3, 3, 3]
    assert [cell.value for cell in cells(selection, "top1")] == ["70.0", "60.0", "60.0", "90.0"]
    assert [cell.note for cell in cells(selection, "top1")] == ["", "its own val data", "its own val data", ""]
    assert [cell.best for cell in cells(selection, "top1")] == [False, False, False, True]
    content = page_content(selection)
    assert [each.command for each in content["unmeasured"]] == [
        "buttress evaluate run:runs/plain --data folder:photos/val",
        "buttress train --recipe runs/half/recipe.yaml --resume --out runs/half",
    ]
    assert content["uncorrupted"][0].command.endswith("--data folder:photos/val --suite full")
    assert [plot.caption for plot in content["curves"]] == [
        "training loss",
        "learning rate",
        "top-1 on the val data, %",
    ]


def test_a_round_of_refine_is_made_again_by_refine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("refined/round-2"), finished=False)
    (run / "recipe.yaml").write_text("model: timm:test_vit\nrounds: 3\n")
    (entry,) = read_entries([str(run)]).entries
    recipe = "--recipe refined/round-2/recipe.yaml"
    assert train_command(entry) == f"buttress refine {recipe} --out NEW_FOLDER"
    assert resume_command(entry) == f"buttress refine {recipe} --out refined"


def test_what_cannot_be_read_is_named_and_the_others_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.json", evaluation("timm:<script>alert(1)</script>"))
    (tmp_path / "half.json").write_text("{")
    make_run(Path("run"), document=[])
    Path("run/metrics.jsonl").write_text("nonsense\n")
    words = ["report", "none.json", "half.json", "good.json", "./good.json", "run", "timm:net", "--out", "a/page.html"]
    assert main(words) == 0
    error = capsys.readouterr().err
    page = Path("a/page.html").read_text()
    for text in (
        "none.json: no such run folder and no such file",
        "half.json: not valid JSON",
        "./good.json: the same as good.json; shown once",
        "not an evaluation",
        "line 1 is not the figures of an epoch",
        "first `buttress evaluate timm:net --data IMAGES --out FILE.json`",
    ):
        assert error.count(text) == 1, text
        assert page.count(text) == 1, text
    assert all(line.startswith("warning: ") for line in error.strip().splitlines()[:-1])
    assert "nothing is compared with a baseline" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    with pytest.raises(SettingsError, match="nothing to show"):
        read_entries(["none.json", "half.json"])
    assert main(["report", "none.json"]) == 2
    assert main(["report", "good.json", "--out", "good.json"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0] == "buttress report: error: none.json: no such run folder and no such file"
    assert "is one of the files to be shown" in error[1]
    assert json.loads(Path("good.json").read_text())["top1"]


def test_confused_images_are_shown_while_they_are_there(tmp_path):
    photos = tmp_path / "photos"
    for name, colour in (("a.png", 10), ("b.png", 200)):
        (photos / "cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((90, 90, 3), colour, np.uint8)).save(photos / "cat" / name)
    uri = f"folder:{photos}"
    document = evaluation("timm:a", uri=uri)
    document["data"]["fingerprint"] = fingerprint(open_source(uri))
    document["details"]["confused"][0]["ids"] = ["cat/a.png", "cat/b.png"]

    def shown() -> tuple[list[bool], str]:
        (found,) = page_content(read(tmp_path, document))["confusions"]
        return [picture is not None for _, picture in found.pairs[0].pictures], found.note

    assert shown() == ([True, True], "")
    (photos / "cat" / "b.png").unlink()
    pictures, note = shown()
    assert pictures == [True, False]
    assert "has changed since" in note
    (photos / "cat" / "a.png").rename(tmp_path / "a.png")
    (photos / "cat").rmdir()
    photos.rmdir()
    pictures, note = shown()
    assert pictures == [False, False]
    assert "not there any more" in note
    page_of(read(tmp_path, document), tmp_path / "page.html")


def test_the_report_does_not_import_torch(tmp_path):
    make_run(tmp_path / "run", document=evaluation("run"))
    code = (
        "import sys; from buttress.cli import main\n"
        f"assert main(['report', {str(tmp_path / 'run')!r}, '--out', {str(tmp_path / 'page.html')!r}]) == 0\n"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_same_documents_give_the_same_bytes_and_eight_models_stay_small(tmp_path):
    name = "a_long_name_of_many_words_" * 3
    documents = [evaluation(f"timm:{name}{i}", 0.6 + 0.01 * i, **costs(10**6 * (i + 1), 10**8, 0.01)) for i in range(8)]
    selection = read(tmp_path, *documents)
    page = page_of(selection, tmp_path / "page.html")
    assert page == page_of(selection, tmp_path / "again.html")
    assert len(page) < 2_000_000


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The page of three models of long names and the documents behind it, one of them a run."""
    folder = tmp_path_factory.mktemp("report")
    long = "timm:mobilenetv3_large_of_a_very_long_name_that_fits_no_phone.in22k_ft_in1k_and_more"
    documents = [
        evaluation(long, 0.6, **costs(4_000_000, 500_000_000, 0.02)),
        evaluation("timm:small", 0.7, **costs(2_000_000, 300_000_000, 0.01)),
        evaluation("run", 0.75, **costs(9_000_000, 900_000_000, 0.03)),
    ]
    for each in documents:
        seconds = {"seconds": each["latency"], "not_measured": None}
        each["details"]["cost"] = [{"variant": "eager", "batch": 1, "threads": 2, "device": "cpu", **seconds}]
    places = [write(folder / f"{i}.json", each) for i, each in enumerate(documents[:2])]
    run = make_run(folder / "run")
    write_json(run / "evaluation.json", documents[2])
    out = folder / "page.html"
    write_report(read_entries([*places, str(run), str(folder / "none.json")]), out)
    return out, documents


def test_the_page_in_a_browser_shows_the_figures(
    report: tuple[Path, list[dict[str, Any]]], open_page: OpenPage
) -> None:
    path, documents = report
    page = open_page(path)
    for key, kind in KINDS.items():
        if key in documents[0]:
            row = page.locator(f"tr[data-key={key}] td .value").all_inner_texts()
            shown = [text.split("\n")[0].strip() for text in row]
            assert shown == [kind.text(each[key]["value"]) for each in documents], key
    marked = {
        row.get_attribute("data-key"): [cell.get_attribute("class") == "best" for cell in row.locator("td").all()]
        for row in page.locator("tr[data-key]").all()
    }
    assert marked["top1"] == [False, False, True]
    assert marked["parameters"] == [False, True, False]
    assert marked["top5"] == [False, False, False]
    titles = page.locator("svg title").all_text_contents()
    assert len(titles) == 9
    assert any("small: top-1 70.0 %, weights on disk 8\xa0MB" in title for title in titles)
    assert "none.json: no such run folder" in page.inner_text(".faults")
    assert page.locator("td.front").count() == 6  # the first model is beaten everywhere


def test_the_page_fits_a_phone_and_follows_light_and_dark(
    report: tuple[Path, list[dict[str, Any]]], open_page: OpenPage
) -> None:
    path, _ = report
    light, dark = open_page(path, PHONE), open_page(path, PHONE, dark=True)
    for page in (light, dark):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    colours = [
        page.evaluate(
            "[document.body, document.querySelector('svg text'), document.querySelector('td.shade')]"
            ".map(each => getComputedStyle(each)).flatMap(style => [style.color, style.backgroundColor, style.fill])"
        )
        for page in (light, dark)
    ]
    assert colours[0][1] != colours[1][1]
    assert colours[0][0] != colours[1][0]
    assert colours[0][5] != colours[1][5]  # the plots' text
    assert colours[0][7] != colours[1][7]  # the heat map's cells


@pytest.mark.parametrize(("key", "value"), [("classes", "others"), ("labels", "mended"), ("count", 499)])
def test_other_classes_labels_or_counts_are_not_compared(tmp_path, key, value):
    other = evaluation("timm:other", 0.9)
    other["data"][key] = value
    selection = read(tmp_path, evaluation("timm:low", 0.6), other)
    assert not comparable(KINDS["top1"], *selection.entries)


def test_accuracies_by_other_right_labels_are_not_compared(tmp_path):
    told = [evaluation(f"timm:{name}", 0.6) for name in "abc"]
    for each, digest in zip(told, ("one", "one", "two"), strict=True):
        each["multilabel_top1"] = each["top1"]
        each["data"]["label_sets"] = digest
    one, same, other = read(tmp_path, *told).entries
    assert comparable(KINDS["multilabel_top1"], one, same)
    assert not comparable(KINDS["multilabel_top1"], one, other)


def test_an_evaluation_of_other_weights_is_not_shown_as_that_of_the_run(tmp_path):
    run = make_run(tmp_path / "run")
    document = evaluation(f"run:{run}", 0.6)
    document["settings"]["weights_sha256"] = "0" * 64
    (run / "evaluation.json").write_text(json.dumps(document))
    (entry,) = read_entries([str(run)]).entries
    assert entry.evaluation is None
    assert "other weights" in entry.faults[0]


def test_text_that_no_file_can_hold_does_not_stop_the_page(tmp_path):
    document = evaluation("timm:\ud800", 0.6)
    write_report(read(tmp_path, document), tmp_path / "page.html")
    assert "60.0" in (tmp_path / "page.html").read_text()


def test_a_file_of_a_run_is_not_overwritten(tmp_path):
    run = make_run(tmp_path / "run")
    kept = (run / "run.json").read_bytes()
    assert main(["report", str(run), "--out", str(run / "run.json")]) == 2
    assert (run / "run.json").read_bytes() == kept

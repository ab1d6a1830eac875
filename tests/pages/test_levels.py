"""Elastic runs on the page of `buttress report`: one model, a table of its levels, and each of them in the planes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.pages.conftest import PHONE, OpenPage
from tests.pages.documents import costs, elastic, evaluation, figure, level, make_run, write

from buttress.errors import SettingsError
from buttress.pages.entry import Selection, read_entries
from buttress.pages.evaluation import read_evaluation
from buttress.pages.kinds import KINDS
from buttress.pages.levels import level_tables
from buttress.pages.origin import evaluate_command, facts, resume_command, train_command
from buttress.pages.plots import Point, scatter_svg
from buttress.pages.report import page_content, write_report
from buttress.pages.scatters import Scatter, is_costed, scatters

KEEPS = (("keep=1", 0.74, 16_000_000), ("keep=0.5", 0.72, 9_000_000), ("keep=0.1", 0.5, 2_000_000))


def keep_levels() -> list[dict[str, Any]]:
    return [level(name, top1, bytes=size, macs=10**8) for name, top1, size in KEEPS]


def read(tmp_path: Path, *documents: Any) -> Selection:
    """The selection of some documents, written as a.json, b.json, ..."""
    return read_entries([write(tmp_path / f"{'abcdefgh'[i]}.json", each) for i, each in enumerate(documents)])


def timed(document: dict[str, Any]) -> dict[str, Any]:
    """The same, timed on the one machine there is."""
    where = {"variant": "eager", "batch": 1, "threads": 2, "device": "cpu", "not_measured": None}
    document["details"]["cost"] = [{**where, "seconds": document["latency"]}]
    return document


def planes_of(selection: Selection) -> dict[str, Scatter]:
    return {each.kind.key: each for each in scatters(selection.entries, selection.baseline)}


def titles(svg: str) -> list[str]:
    return re.findall(r"<title>(.*?)</title>", svg)


def test_all_levels_stand_in_the_planes_and_count_for_the_front(tmp_path):
    plain = timed(evaluation("timm:plain", 0.7, **costs(2_000_000, 2 * 10**8, 0.01)))  # 8 MB
    dear = timed(evaluation("timm:dear", 0.73, **costs(9_000_000, 9 * 10**8, 0.02)))  # 36 MB
    net = timed(elastic("timm:net", keep_levels(), **costs(10**6, 10**8, 0.02)))
    planes = planes_of(read(tmp_path, plain, net, dear))
    assert list(planes) == ["bytes", "macs", "latency"]
    size = planes["bytes"]
    assert size.front == {("B", "keep=0.1"), ("A", None), ("B", "keep=0.5"), ("B", "keep=1")}
    assert size.costs == {"A": "8\xa0MB", "B": "16\xa0MB", "C": "36\xa0MB"}
    assert titles(size.svg) == [
        "plain: top-1 70.0 %, weights on disk 8\xa0MB",
        "net, keep=1: top-1 74.0 %, weights on disk 16\xa0MB",
        "net, keep=0.5: top-1 72.0 %, weights on disk 9\xa0MB",
        "net, keep=0.1: top-1 50.0 %, weights on disk 2\xa0MB",
        "dear: top-1 73.0 %, weights on disk 36\xa0MB",
    ]
    assert planes["macs"].front == {("B", "keep=1")}
    assert len(titles(planes["macs"].svg)) == 5
    assert [text for text in titles(planes["latency"].svg) if "net" in text] == [
        "net, keep=1: top-1 74.0 %, latency, batch 1 20\xa0ms"
    ]


def test_a_quick_evaluation_has_the_sizes_of_its_levels(tmp_path):
    (entry,) = read(tmp_path, elastic("timm:net", keep_levels())).entries
    assert is_costed(entry)
    assert [each.kind.key for each in scatters([entry], None)] == ["bytes", "macs"]
    assert page_content(read_entries([entry.place]))["uncosted"] == []


@pytest.mark.parametrize("value", [0, None])
def test_a_level_whose_cost_no_axis_can_show_is_left_out(tmp_path, value):
    levels = keep_levels()
    levels[0]["bytes"] = levels[2]["macs"] = value
    planes = planes_of(read(tmp_path, elastic("timm:net", levels)))
    assert [text.split(":")[0] for text in titles(planes["bytes"].svg)] == ["net, keep=0.5", "net, keep=0.1"]
    assert planes["bytes"].costs == {}
    assert len(titles(planes["macs"].svg)) == 2
    write_report(read(tmp_path, elastic("timm:net", levels)), tmp_path / "page.html")


def test_a_model_without_a_file_brings_the_plane_of_parameters(tmp_path):
    hub = evaluation("timm:hub", 0.7, **{**costs(3_000_000, 10**8, 0.01), "bytes": figure(None)})
    planes = planes_of(read(tmp_path, elastic("timm:net", keep_levels()), hub))
    assert list(planes) == ["parameters", "bytes", "macs", "latency"]
    assert set(planes["parameters"].costs) == {"A", "B"} and set(planes["bytes"].costs) == {"A"}


def test_levels_are_joined_in_the_order_of_their_cost_and_have_one_letter():
    def point(key: str, x: float, y: float, *, lettered: bool = True) -> Point:
        return Point(key=key, series=2, x=x, y=y, low=None, high=None, words=f"{key} {x:g}", lettered=lettered)

    levels = [point("Q", 4, 60), point("Q", 1, 40, lettered=False), point("Q", 8, 70, lettered=False)]
    lone = point("Z", 2, 30)
    svg = scatter_svg([*levels, lone], [], what="w", xlabel="x", ylabel="y", tick=str)
    assert titles(svg) == ["Q 4", "Q 1", "Q 8", "Z 2"]
    assert (svg.count(">Q<"), svg.count(">Z<")) == (1, 1)
    (path,) = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--s2\); stroke-width: 1.4[^"]*"', svg)
    xs = [float(x) for x in re.findall(r"[ML] (\S+) \S+", path)]
    assert len(xs) == 3 and xs == sorted(xs)


def test_the_table_has_the_figures_of_every_level(tmp_path):
    levels = keep_levels()
    del levels[1]["figures"]["nll"], levels[1]["figures"]["ece"]
    levels[2]["macs"], levels[2]["figures"]["top1"] = None, figure(0.5)
    selection = read(tmp_path, evaluation("timm:plain"), elastic("timm:net", levels))
    ((entry, rows),) = level_tables(selection.entries, scatters(selection.entries, None))
    assert entry.name == "net"
    assert [(row.level, row.top1, row.half, row.nll, row.ece) for row in rows] == [
        ("keep=1", "74.0", "2.0", "1.260", "7.4"),
        ("keep=0.5", "72.0", "2.0", "\N{EN DASH}", "\N{EN DASH}"),
        ("keep=0.1", "50.0", "", "1.500", "5.0"),
    ]
    assert [(row.bytes, row.macs) for row in rows] == [
        ("16\xa0MB", "100\xa0M"),
        ("9\xa0MB", "100\xa0M"),
        ("2\xa0MB", "\N{EN DASH}"),
    ]
    assert [sorted(row.fronts) for row in rows] == [["bytes", "macs"], ["bytes"], ["bytes"]]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda levels: levels.append(3), "details.levels is ["),
        (lambda levels: levels[1].update(level=0.5), "details.levels[1].level is 0.5, not a name"),
        (lambda levels: levels[1].update(level="keep=1"), "details.levels[1].level is 'keep=1', not a name of its own"),
        (lambda levels: levels[0].update(figures=None), "details.levels[0].figures is None"),
        (lambda levels: levels[0]["figures"].pop("top1"), "details.levels[0].figures: top1 has no value"),
        (lambda levels: levels[0]["figures"]["top1"].update(value=None), "top1 has no value"),
        (lambda levels: levels[2]["figures"]["nll"].update(value="x"), "details.levels[2].figures.nll.value is 'x'"),
        (lambda levels: levels[2].update(bytes=-1), "details.levels[2].bytes is -1, not a count"),
        (lambda levels: levels[2].update(macs=1.5), "details.levels[2].macs is 1.5, not a count"),
        (lambda levels: levels[2].update(parameters=True), "details.levels[2].parameters is True, not a number"),
    ],
)
def test_levels_of_the_wrong_kind_are_left_out_and_told(tmp_path, spoil, fault):
    document = elastic("timm:net", keep_levels())
    spoil(document["details"]["levels"])
    selection = read(tmp_path, document)
    (told,) = selection.faults
    assert fault in told and told.endswith("; left out")
    assert selection.entries[0].level == "keep=1"  # that the figures are of
    write_report(selection, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "74.0" in page and 'id="levels"' not in page


def test_a_level_by_itself_is_one_point_under_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/net"), document=elastic("run:runs/net", keep_levels()))
    one = evaluation("run:runs/net@keep=0.25", 0.65, **costs(10**6, 10**8, 0.01))
    one["settings"]["level"] = "keep=0.25"
    write(Path("one.json"), one)
    whole, level_ = read_entries(["run:runs/net", "one.json"]).entries
    assert (whole.name, level_.name) == ("net", "net@keep=0.25")
    assert level_.run is not None and len(level_.history) == 3
    assert dict(facts(whole))["level"] == "keep=1, and 2 others"
    assert dict(facts(level_))["level"] == "keep=0.25"
    assert evaluate_command(level_).startswith("buttress evaluate run:runs/net@keep=0.25 --data")
    size = planes_of(read_entries(["run:runs/net", "one.json"]))["bytes"]
    assert titles(size.svg)[-1] == "net@keep=0.25: top-1 65.0 %, weights on disk 4\xa0MB"
    with pytest.raises(SettingsError, match="is shown at all its levels; give runs/net, or FILE of"):
        read_entries(["run:runs/net@keep=0.25"])
    assert read_evaluation(Path("one.json")).levels == ()


def test_a_compressed_run_is_made_again_by_compress(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, finished in (("runs/whole", True), ("runs/half", False)):
        card = json.loads((make_run(Path(name), finished=finished) / "run.json").read_text())
        write(Path(name, "run.json"), {**card, "methods": [{"name": "lcs", "settings": {}}]})
    whole, half = read_entries(["runs/whole", "runs/half"]).entries
    assert train_command(whole) == "buttress compress --recipe runs/whole/recipe.yaml --out NEW_FOLDER"
    assert resume_command(half) == "buttress compress --recipe runs/half/recipe.yaml --resume --out runs/half"
    assert dict(facts(whole))["method"] == "lcs"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The page of a plain model and an elastic run, and the document of the run."""
    folder = tmp_path_factory.mktemp("levels")
    document = timed(elastic("net", keep_levels(), **costs(10**6, 10**8, 0.02)))
    run = make_run(folder / "a-name-that-is-rather-long-for-a-telephone-and-for-a-plot", document=document)
    plain = timed(evaluation("timm:plain", 0.7, **costs(2_000_000, 2 * 10**8, 0.01)))
    write_report(read_entries([write(folder / "plain.json", plain), str(run)]), folder / "page.html")
    return folder / "page.html", document


def test_the_table_in_a_browser_is_that_of_the_document(
    report: tuple[Path, dict[str, Any]], open_page: OpenPage
) -> None:
    path, document = report
    page = open_page(path)
    levels = document["details"]["levels"]
    assert page.locator("table.levels").count() == 1
    rows = page.locator("table.levels tbody tr").all()
    assert [row.get_attribute("data-level") for row in rows] == [each["level"] for each in levels]
    for row, each in zip(rows, levels, strict=True):
        name, top1, nll, ece, size, macs = (cell.strip() for cell in row.locator("td").all_inner_texts())
        value = each["figures"]["top1"]
        assert name == each["level"] + (" default" if each is levels[0] else "")
        assert top1 == f"{100 * value['value']:.1f} ± {50 * (value['high'] - value['low']):.1f}"
        told = {"nll": each["figures"]["nll"]["value"], "ece": each["figures"]["ece"]["value"]}
        told |= {"bytes": each["bytes"], "macs": each["macs"]}
        assert (nll, ece, size, macs) == tuple(KINDS[key].text(value) for key, value in told.items())
    assert page.locator("table.levels td.front").count() == 4  # all by size, the default by multiply-accumulates
    assert page.locator("nav a[href='#levels']").count() == 1
    assert len(page.locator("svg title").all_text_contents()) == 4 + 4 + 2
    assert page.locator("table.summary thead small", has_text="keep=1").count() == 1


def test_the_page_with_levels_fits_a_phone(report: tuple[Path, dict[str, Any]], open_page: OpenPage) -> None:
    page = open_page(report[0], PHONE, dark=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

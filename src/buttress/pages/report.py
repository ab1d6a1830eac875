"""The page of `buttress report`: models compared on everything that was measured, in one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buttress.files import write_atomic
from buttress.pages.confusions import Album, confusions
from buttress.pages.corruptions import corruptions_of, differences, heat_map
from buttress.pages.entry import Entry, Selection
from buttress.pages.kinds import KINDS, Kind, short_seconds
from buttress.pages.levels import level_tables
from buttress.pages.origin import evaluate_command, facts, resume_command, train_command, versions_of
from buttress.pages.plots import Line, lines_svg, reliability_svg, risk_svg
from buttress.pages.scatters import is_costed, scatters
from buttress.pages.table import (
    Difference,
    comparable,
    difference,
    figure_of,
    from_training,
    other_rows,
    plain,
    summary_rows,
)
from buttress.pages.templates import page_template, require_libraries
from buttress.pages.text import count, points
from buttress.terminal import number

# Section -> what of an evaluation it shows.
_SECTIONS = {
    "reliability": ("reliability",),
    "risk": ("risk_coverage",),
    "sizes": ("scales", "shift_camera", "shift_cyclic"),
    "confusions": ("confused",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A model that a section says nothing of, and the command that would measure it."""

    entry: Entry
    why: str
    command: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A plot with its caption."""

    caption: str
    svg: str


def write_report(selection: Selection, out: Path) -> None:
    """Write the page.

    Args:
        selection: the models.
        out: the HTML file.

    Raises: SettingsError where Jinja2 or matplotlib is not installed.
    """
    require_libraries()
    template = page_template(
        "report.html.j2",
        count=count,
        number=number,
        points=points,
        seconds=short_seconds,
        plain=plain,
        origin=_origin,
        figure_text=_figure_text,
    )
    write_atomic(out, template.render(**page_content(selection)).encode(errors="replace"))


def page_content(selection: Selection) -> dict[str, Any]:
    """Everything that the template shows, by name."""
    entries, baseline = selection.entries, selection.baseline
    album = Album()
    others, by_corruption = differences(entries, baseline)
    return {
        "selection": selection,
        "entries": entries,
        "baseline": baseline,
        "headline": headline(selection),
        "lead": lead(selection),
        "groups": summary_rows(entries, baseline),
        "others": other_rows(entries),
        "trained_only": [each for each in entries if from_training(each)],
        "unmeasured": _missing(entries, lambda each: each.evaluation is not None, full=False),
        "reliability": [(each, reliability_svg(bins)) for each in entries if (bins := _detail(each, "reliability"))],
        "heat_maps": [found for each in entries if (found := heat_map(each)) is not None],
        "corruption_others": others,
        "corruption_differences": by_corruption,
        "uncorrupted": _missing(entries, lambda each: corruptions_of(each) is not None),
        "scales": _scale_plot(entries),
        "shifts": _shifts(entries),
        "scatters": (planes := scatters(entries, baseline)),
        "in_planes": [each for each in entries if any(each.key in plane.costs for plane in planes)],
        "uncosted": _missing(entries, is_costed, full=True),
        "level_tables": level_tables(entries, planes),
        "costs": [(each, cost) for each in entries if (cost := _detail(each, "cost"))],
        "curves": training_plots(entries),
        "untrained": [each for each in entries if not each.history],
        "confusions": [pairs for each in entries if (pairs := confusions(each, album, len(entries))) is not None],
        "risk": _risk_plot(entries),
        "lacking": {name: _lacking(entries, *details) for name, details in _SECTIONS.items()},
        "slices": [(each, _columns(told), told) for each in entries if (told := _detail(each, "slices"))],
    }


def headline(selection: Selection) -> str:
    """The one line that says what came out."""
    entries, baseline, kind = selection.entries, selection.baseline, KINDS["top1"]
    scored = [each for each in entries if each.evaluation is not None and each.evaluation.value("top1") is not None]
    if not scored:
        return f"{number(len(entries), 'model')}, not evaluated yet"
    first = baseline if baseline in scored else scored[0]
    assert first is not None
    rivals = [each for each in scored if each is not first and comparable(kind, each, first)]
    if not rivals:
        return f"{first.name}: {points(_top1(first))}\N{NO-BREAK SPACE}% top-1"
    rival = max(rivals, key=_top1)
    told = _difference(kind, rival, first)
    apart = f"{points(abs(told.value))} points of top-1"
    if told.clear:
        best, worse = (rival, first) if told.value > 0 else (first, rival)
        return f"{best.name} is {apart} ahead of {worse.name}"
    return f"No clear winner: {rival.name} and {first.name} are {apart} apart"


def lead(selection: Selection) -> str:
    """A sentence on what is compared."""
    entries, baseline = selection.entries, selection.baseline
    told = {each.evaluation.images: each.evaluation for each in entries if each.evaluation is not None}
    where = ""
    if len(told) == 1:
        (evaluation,) = told.values()
        images = evaluation.data.get("count")
        where = f" on {count(images)} images of {evaluation.data.get('uri')}" if isinstance(images, int) else ""
    elif len(told) > 1:
        where = f" on {len(told)} different sets of images, so not all of them can be compared"
    if len(entries) == 1:
        return f"{entries[0].name}{where}."
    against = "; nothing is compared with a baseline, for that could not be read"
    if baseline is not None:
        against = f"; the baseline is {baseline.name}"
    return f"{number(len(entries), 'model')}{where}{against}."


def training_plots(entries: Sequence[Entry]) -> list[Plot]:
    """Loss, learning rate and top-1 by epoch, of the runs that are there."""
    runs = [each for each in entries if each.history]
    wanted: tuple[tuple[str, Callable[[Any], float | None]], ...] = (
        ("training loss", lambda epoch: epoch.loss),
        ("learning rate", lambda epoch: epoch.lr),
        ("top-1 on the val data, %", lambda epoch: _percent(epoch.val["top1"].value) if "top1" in epoch.val else None),
    )
    plots = []
    for caption, value in wanted:
        lines = [line for each in runs if (line := _history_line(each, value)) is not None]
        if lines:
            svg = lines_svg(lines, what=f"{caption} by epoch", xlabel="epoch", ylabel="")
            plots.append(Plot(caption=caption, svg=svg))
    return plots


def _history_line(entry: Entry, value: Callable[[Any], float | None]) -> Line | None:
    told = [(epoch.epoch, found) for epoch in entry.history if (found := value(epoch)) is not None]
    if not told:
        return None
    return Line(key=entry.key, series=entry.series, x=[x for x, _ in told], y=[y for _, y in told])


def _risk_plot(entries: Sequence[Entry]) -> str | None:
    lines = [
        Line(key=each.key, series=each.series, x=curve[0], y=curve[1])
        for each in entries
        if (curve := _detail(each, "risk_coverage")) is not None
    ]
    return risk_svg(lines) if lines else None


def _scale_plot(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Top-1 over the side of the input, and the sides at which a model cannot run."""
    lines, unable = [], []
    for each in entries:
        told = _detail(each, "scales") or []
        known = [(side, figure) for side, figure in told if figure.value is not None]
        unable += [(each, side) for side, figure in told if figure.value is None]
        if known:
            lines.append(_scale_line(each, known))
    if not lines:
        return None
    svg = lines_svg(lines, what="top-1 by the side of the input", xlabel="side of the input, pixels", ylabel="top-1, %")
    return {"svg": svg, "unable": unable}


def _scale_line(entry: Entry, known: Sequence[tuple[float, Any]]) -> Line:
    with_ends = all(figure.half is not None for _, figure in known)
    return Line(
        key=entry.key,
        series=entry.series,
        x=[side for side, _ in known],
        y=[100 * figure.value for _, figure in known],
        low=[100 * figure.low for _, figure in known] if with_ends else None,
        high=[100 * figure.high for _, figure in known] if with_ends else None,
    )


def _shifts(entries: Sequence[Entry]) -> list[tuple[str, list[tuple[Entry, Any]]]]:
    """Kind of shift -> the figures of the models that have it."""
    titles = {
        "shift_camera": "the crop moves over the photograph",
        "shift_cyclic": "the crop's pixels move in a circle",
    }
    found = []
    for key, title in titles.items():
        told = [(each, figure) for each in entries if (figure := figure_of(each, key)) and figure.value is not None]
        if told:
            found.append((title, told))
    return found


def _missing(entries: Sequence[Entry], measured: Callable[[Entry], bool], *, full: bool = True) -> list[Missing]:
    """The models that were not measured, each with the next command that leads there."""
    data = next((str(each.evaluation.data.get("uri")) for each in entries if each.evaluation is not None), None)
    told = {} if data is None else {"data": data}
    return [
        Missing(entry=each, why="unfinished", command=resume_command(each))
        if not each.finished
        else Missing(entry=each, why="not measured", command=evaluate_command(each, full=full, **told))
        for each in entries
        if not measured(each)
    ]


def _lacking(entries: Sequence[Entry], *details: str) -> list[Entry]:
    """Models of which none of these is told."""
    return [each for each in entries if not any(_told(each, name) for name in details)]


def _told(entry: Entry, name: str) -> bool:
    """Whether the evaluation has such a detail, also an empty one, or such a figure."""
    return entry.evaluation is not None and (name in entry.evaluation.details or name in entry.evaluation.figures)


def _origin(entry: Entry) -> dict[str, Any]:
    return {
        "facts": facts(entry),
        "versions": versions_of(entry),
        "evaluate": evaluate_command(entry) if entry.evaluation is not None else None,
        "train": train_command(entry),
    }


def _figure_text(figure: Any) -> str:
    """A figure of an unknown kind with its interval; words as they are."""
    if isinstance(figure, str):
        return figure
    if figure.value is None:
        return "undefined"
    ends = "" if figure.half is None else f" [{plain(figure.low)}, {plain(figure.high)}]"
    return plain(figure.value) + ends


def _columns(slices: Sequence[Any]) -> list[str]:
    """What is told of any part of the images, in the order of the document."""
    return list(dict.fromkeys(name for each in slices for name in each["told"]))


def _top1(entry: Entry) -> float:
    assert entry.evaluation is not None
    value = entry.evaluation.value("top1")
    assert value is not None
    return value


def _difference(kind: Kind, entry: Entry, base: Entry) -> Difference:
    assert entry.evaluation is not None and base.evaluation is not None
    told = difference(kind, entry.evaluation.figures[kind.key], base.evaluation.figures[kind.key])
    assert told is not None
    return told


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _detail(entry: Entry, name: str) -> Any:
    return None if entry.evaluation is None else entry.evaluation.details.get(name)

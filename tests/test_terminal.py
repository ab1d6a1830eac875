"""What the log of unwatched work says, and when."""

from __future__ import annotations

import pytest

from buttress.terminal import print_table, progress


class Clock:
    """A time that only moves when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def work(clock, seconds_each, counts, total=1000):
    with progress("labelling", total, "views", clock=clock) as bar:
        for count in counts:
            clock.now += seconds_each
            bar.update("loss 0.5")
            bar.advance(count)


def test_short_work_says_nothing_to_a_log(clock, capsys):
    work(clock, 1, [10] * 29)
    assert capsys.readouterr().err == ""


def test_long_work_says_a_line_every_30_seconds_to_a_log(clock, capsys):
    work(clock, 1, [2] * 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "labelling: 60/1,000, 2.0 views/s, 8 min left, loss 0.5",
        "labelling: 120/1,000, 2.0 views/s, 7 min left, loss 0.5",
        "labelling: 180/1,000, 2.0 views/s, 7 min left, loss 0.5",
    ]


def test_what_was_done_before_a_resume_is_not_counted_into_the_rate(clock, capsys):
    with progress("training", 1000, "steps", clock=clock) as bar:
        bar.advance(900)
        clock.now += 40
        bar.advance(40)
    assert capsys.readouterr().err == "training: 940/1,000, 1.0 steps/s, 60 s left\n"


def test_one_long_step_has_a_count_but_no_rate(clock, capsys):
    work(clock, 7200, [5])
    assert capsys.readouterr().err == "labelling: 5/1,000, loss 0.5\n"


def test_hours_are_told_as_hours(clock, capsys):
    work(clock, 40, [1, 1], total=1000)
    assert capsys.readouterr().err.splitlines()[-1] == "labelling: 2/1,000, 0.0 views/s, 11 h left, loss 0.5"


def test_a_table_in_a_pipe_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("of two", ["", "value"], [["x" * 150, "1.5"], ["[bold]", "20"]])
    title, *lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert title == "of two"
    assert lines[2].split() == ["x" * 150, "1.5"]
    assert lines[3].split() == ["[bold]", "20"]
    assert len(lines[2]) == len(lines[3])

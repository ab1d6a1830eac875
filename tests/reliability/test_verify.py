"""`verify` asks the teacher again (R15), and reports how far what is stored lies from what the teacher says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from buttress.cli import main
from buttress.store.reader import open_reinforcement
from buttress.store.truth import decode_log8
from buttress.store.writer import PartColumns, write_card, write_part

LINE = re.compile(
    r"(ok|WRONG) +teacher: (\d+) views asked again, .* (\d\.\d+) on average \(99 % within (\d\.\d+), "
    r"largest (\d\.\d+) at view (\d+) of (\S+); tolerance (\S+)\)"
)


@pytest.fixture
def plus(photos, colour_teacher, tmp_path):
    words = [
        "--source",
        f"folder:{photos}",
        "--teacher",
        colour_teacher,
        "--views=3",
        "--k=2",
        "--workers=0",
        "--truth",
    ]
    assert main(["reinforce", *words, "--out", str(tmp_path / "plus")]) == 0
    return tmp_path / "plus"


def verified(plus, photos, capsys, *words):
    """Exit code and the groups of the line about the teacher."""
    capsys.readouterr()
    code = main(["verify", str(plus), "--source", f"folder:{photos}", *words])
    found = LINE.search(capsys.readouterr().out)
    assert found is not None
    return code, found.groups()


def rewrite(plus: Path, change: Callable[[np.ndarray, np.ndarray], None]) -> None:
    """Change the labels `[V, N, S]` and the truth `[V, N]` of the only part, under checksums that fit."""
    store = open_reinforcement(plus)
    (entry,) = store.card.parts
    part = store.part(entry)
    labels_VNS = np.stack([part.plane(view, store.codec.stride) for view in range(store.views)])
    truth_VN = np.stack([part.numbers("truth", view) for view in range(store.views)])
    change(labels_VNS, truth_VN)
    written = write_part(
        plus,
        row_block=0,
        first_row=0,
        first_view=0,
        labels_VNS=labels_VNS,
        columns=PartColumns(**{name: part.column(name) for name in ("id_hashes", "hard_labels", "content_hashes")}),
        settings_digest=store.card.settings_digest,
        truth_VN=truth_VN,
    )
    write_card(plus, replace(store.card, parts=(written,)))


def test_R15_the_largest_difference_is_reported_with_its_place(photos, plus, capsys):
    code, (held, views, mean, _, largest, *_) = verified(plus, photos, capsys)
    assert (code, held, views) == (0, "ok", "72")
    assert float(mean) <= float(largest) < 0.02

    store = open_reinforcement(plus)
    rows = np.arange(24)
    odd = store.codec.encode(
        np.array([[0.5, 0.3]]), np.array([[0, 2]])
    )  # blue 0.5, red 0.3, green 0.2: odd for a green one
    row = next(row for row in rows.tolist() if store.hard_labels[row] == 1)
    values, ids, rest = store.targets(np.array([row]), 2)
    before = dict(zip(ids[0].tolist(), values[0].tolist(), strict=True))
    (third,) = {0, 1, 2} - set(before)
    before[third] = float(rest[0])
    distance = 0.5 * sum(abs(before[c] - p) for c, p in enumerate((0.5, 0.2, 0.3)))

    def change(labels_VNS, truth_VN):
        labels_VNS[2, row] = odd

    rewrite(plus, change)
    _, (_, views, _, _, largest, view, sample, _) = verified(plus, photos, capsys)
    assert views == "72"
    assert float(largest) == pytest.approx(distance, abs=0.02)
    assert (int(view), sample) == (2, sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))[row])


def test_R15_records_that_the_teacher_does_not_confirm_are_found(photos, plus, capsys):
    def change(labels_VNS, truth_VN):
        labels_VNS[:, ::4] = np.roll(labels_VNS, 8, axis=1)[:, ::4]  # a quarter of the rows get another colour's labels

    rewrite(plus, change)
    code, (held, *_) = verified(plus, photos, capsys)
    assert (code, held) == (1, "WRONG")
    code, (held, *_, tolerance) = verified(plus, photos, capsys, "--tolerance", "1")
    assert (code, held, tolerance) == (0, "ok", "1.0")


def test_R15_a_truth_that_the_teacher_does_not_confirm_is_found(photos, plus, capsys):
    store = open_reinforcement(plus)
    was = store.truth(np.arange(24), 1)[5]

    def change(labels_VNS, truth_VN):
        truth_VN[1, 5] = 230

    rewrite(plus, change)
    _, (*_, largest, view, _, _) = verified(plus, photos, capsys)
    expected = abs(was - decode_log8(np.array([230], np.uint8))[0])
    assert expected > 0.1
    assert float(largest) == pytest.approx(expected, rel=0.1)
    assert int(view) == 1


def test_R15_a_sample_is_as_large_as_asked_and_spread_over_rows_and_views(photos, plus, capsys):
    assert verified(plus, photos, capsys, "--sample", "7")[1][1] == "7"
    assert verified(plus, photos, capsys, "--sample", "1000")[1][1] == "72"
    assert main(["verify", str(plus), "--source", f"folder:{photos}", "--sample", "0"]) == 0
    assert "asked again" not in capsys.readouterr().out


def test_renamed_files_are_said_to_be_renamed(photos, plus, capsys):
    for path in sorted((photos / "red").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    capsys.readouterr()
    main(["verify", str(plus), "--source", f"folder:{photos}", "--sample", "0"])
    text = capsys.readouterr().out
    assert "16 of 24 samples are reinforced" in text
    assert "8 have no stored labels: 8 of 8 were renamed" in text
    assert "give them their old names back, or run the same buttress reinforce command again to label them" in text
    (photos / "red").rename(photos / "rot")
    assert main(["verify", str(plus), "--source", f"folder:{photos}", "--sample", "0"]) == 1
    assert "class red is now rot" in capsys.readouterr().out

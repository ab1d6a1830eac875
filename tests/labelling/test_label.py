"""Labelling a source: what is stored is what the teacher said, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
import sys
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.labelling.by_hand import said_of
from tests.labelling.small_labelling import (
    blocks_labelled,
    bytes_of,
    cut_off,
    damage,
    labelled,
    parts_of,
    records_of,
    spec_of,
)

from buttress.errors import LabellingError, SourceError, StoreError
from buttress.labelling import growth, label
from buttress.labelling.label import label_source
from buttress.labelling.settings import LabelSettings
from buttress.sources import Relabelled, Subset, open_source
from buttress.store.reader import open_reinforcement
from buttress.store.verify import check_integrity
from buttress.views.presets import preset

POLICY = preset("randaug")
run = partial(labelled, policy=POLICY)


def test_the_store_holds_what_the_teacher_says_of_each_view(source, colour_teacher, tmp_path):
    store = run(source, colour_teacher, tmp_path / "plus")
    for row, view in [(0, 0), (5, 3), (23, 2)]:
        said = said_of(spec_of(colour_teacher, source), POLICY, source, source.ids[row], view)
        values, ids, rest = store.targets(np.array([row]), view)
        np.testing.assert_allclose(values[0], said[ids[0]], rtol=0.03)
        np.testing.assert_allclose(rest[0], 1 - said[ids[0]].sum(), atol=0.02)
        assert ids[0, 0] == said.argmax()
    assert store.hard_labels.tolist() == source.labels.tolist()
    assert check_integrity(tmp_path / "plus").whole


def test_an_interrupted_labelling_goes_on_and_redoes_nothing(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), blocks_labelled(limit=3) as first:
        run(source, colour_teacher, tmp_path / "cut")
    with blocks_labelled() as then:
        run(source, colour_teacher, tmp_path / "cut")
    assert len(first) == 3
    assert not {block.number for block in first} & {block.number for block in then}
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_a_damaged_block_does_not_exist(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "whole")
    with cut_off("_assemble", of=label._Labelling):
        run(source, colour_teacher, tmp_path / "cut")
    block = next((tmp_path / "cut" / ".work").rglob("block-*"))
    damage(block, block.stat().st_size // 2)
    run(source, colour_teacher, tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_more_views_and_more_rows_leave_what_is_there(source, colour_teacher, tmp_path):
    out, half = tmp_path / "plus", Subset(source, range(0, 24, 2))
    before = run(half, colour_teacher, out)
    there = parts_of(out)
    run(half, colour_teacher, out, views=6)
    grown = run(source, colour_teacher, out, views=6)
    assert there.items() <= parts_of(out).items()
    assert (grown.rows, grown.views, grown.card.source.rows) == (24, 6, before.rows)
    fresh = run(source, colour_teacher, tmp_path / "fresh", views=6)
    np.testing.assert_array_equal(records_of(grown, grown.rows_of(fresh.id_hashes)), records_of(fresh))
    assert check_integrity(out).whole


def test_nothing_to_do_is_said_and_done(source, colour_teacher, tmp_path, capsys):
    run(source, colour_teacher, tmp_path / "plus")
    before = bytes_of(tmp_path / "plus")
    run(source, colour_teacher, tmp_path / "plus")
    assert "nothing to do" in capsys.readouterr().err
    assert bytes_of(tmp_path / "plus") == before


def test_views_cannot_be_added_to_samples_that_are_away(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "plus")
    with pytest.raises(LabellingError, match="12 of the samples that need labels are not in"):
        run(Subset(source, range(12)), colour_teacher, tmp_path / "plus", views=6)


def test_an_image_that_changed_gets_no_more_views(source, photos, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "plus")
    (first, second) = sorted(photos.rglob("*.png"))[:2]
    shutil.copy(second, first)
    with pytest.raises(SourceError, match=r"blue/00\.png: the image has changed"):
        run(source, colour_teacher, tmp_path / "plus", views=6)


def test_other_settings_are_refused_by_name(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "plus")
    with pytest.raises(LabellingError, match=r"other settings \(seed, labelling differ\)"):
        run(source, colour_teacher, tmp_path / "plus", seed=1, batch=6)


@pytest.mark.parametrize(
    ("growth", "step"),
    [("first", "write_probes")]
    + [(growth, step) for growth in ("first", "views", "rows") for step in ("write_part", "write_index", "write_card")],
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_R11_cut_off_at_any_write_the_second_start_ends_the_same(
    source, photos, colour_teacher, tmp_path, growth, step, moment
):
    (photos / "green" / "01.png").write_bytes(b"not an image")
    half = Subset(source, range(0, 24, 2))

    def grow(out):
        return run(source if growth == "rows" else half, colour_teacher, out, max_bad=0.1, views=6)

    for name in ("whole", "cut"):
        if growth != "first":
            run(half, colour_teacher, tmp_path / name, max_bad=0.1, views=6 if growth == "rows" else 4)
    grow(tmp_path / "whole")
    with cut_off(step, moment):
        grow(tmp_path / "cut")
    grow(tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")
    assert check_integrity(tmp_path / "cut").whole


def test_an_unfinished_start_is_not_thrown_away_by_a_typo(source, colour_teacher, tmp_path):
    with cut_off("write_card"):
        run(source, colour_teacher, tmp_path / "cut")
    with pytest.raises(LabellingError, match="unfinished labelling with other settings"):
        run(source, colour_teacher, tmp_path / "cut", seed=1)
    with pytest.raises(LabellingError, match=r"was made of other images \(4 of its 24 samples"):
        run(Subset(source, range(20)), colour_teacher, tmp_path / "cut")
    run(source, colour_teacher, tmp_path / "whole")
    run(source, colour_teacher, tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_a_store_that_grew_is_mended_part_by_part(source, colour_teacher, tmp_path):
    out = tmp_path / "plus"
    run(Subset(source, range(0, 24, 2)), colour_teacher, out)
    store = run(source, colour_teacher, out)
    fresh = run(source, colour_teacher, tmp_path / "fresh")
    kept = bytes_of(out)
    for name in ("part-00000-v0000", "part-00001-v0000"):
        damaged = damage(out / f"{name}.safetensors")
        with pytest.raises(LabellingError, match="give"):
            run(Subset(source, range(8)), colour_teacher, out)
        assert bytes_of(out) == kept | {f"{name}.safetensors": damaged}
        store = run(source, colour_teacher, out)
        assert check_integrity(out).whole
        np.testing.assert_array_equal(records_of(store, store.rows_of(fresh.id_hashes)), records_of(fresh))
        kept = bytes_of(out)
    parts = parts_of(out)
    (out / "reinforcement.json").unlink()
    assert run(source, colour_teacher, out).rows == 24
    assert parts.items() <= parts_of(out).items()


def test_a_wholly_different_source_is_not_appended(source, colour_teacher, tmp_path):
    run(Subset(source, range(10)), colour_teacher, tmp_path / "plus")
    with pytest.raises(LabellingError, match=r"was made of other images \(all of its 10 samples"):
        run(Subset(source, range(10, 24)), colour_teacher, tmp_path / "plus")


def test_growth_checks_the_renderer_and_keeps_the_first_probes(source, colour_teacher, tmp_path, monkeypatch):
    store = run(source, colour_teacher, tmp_path / "plus")
    before = (tmp_path / "plus" / "probes.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("buttress.store.rendering.probe_views", lambda *_: 255 - store.probes())
        with pytest.raises(StoreError, match="grey levels"):
            run(source, colour_teacher, tmp_path / "plus", views=6)
    run(source, colour_teacher, tmp_path / "plus", views=6)
    assert (tmp_path / "plus" / "probes.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["index.safetensors", "probes.safetensors"])
def test_a_damaged_index_or_probe_is_written_again(source, colour_teacher, tmp_path, name):
    run(source, colour_teacher, tmp_path / "plus")
    kept = bytes_of(tmp_path / "plus")
    (tmp_path / "plus" / name).write_bytes(b"junk")
    run(source, colour_teacher, tmp_path / "plus")
    assert bytes_of(tmp_path / "plus") == kept
    (tmp_path / "plus" / "index.safetensors").unlink()
    assert check_integrity(tmp_path / "plus").whole


def test_one_row_never_mixes_two_images(source, photos, colour_teacher, tmp_path):
    """An image is replaced between two blocks of its views: refused, and after restoring it the store is whole."""
    path = photos / source.ids[0]
    kept = path.read_bytes()
    run_halves = partial(run, views=8, views_per_block=4)
    with pytest.raises(KeyboardInterrupt), blocks_labelled(limit=1):
        run_halves(source, colour_teacher, tmp_path / "cut")
    path.write_bytes((photos / source.ids[1]).read_bytes())
    with pytest.raises(SourceError, match=f"{source.ids[0]}: the image has changed"):
        run_halves(source, colour_teacher, tmp_path / "cut")
    path.write_bytes(kept)
    run_halves(source, colour_teacher, tmp_path / "cut")
    run_halves(source, colour_teacher, tmp_path / "whole")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_a_resume_needs_no_room_for_what_it_has(source, colour_teacher, tmp_path, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(label, "check_disk", lambda out, size, samples: asked.append(size))
    run(source, colour_teacher, tmp_path / "whole")
    with cut_off("_assemble", of=label._Labelling):
        run(source, colour_teacher, tmp_path / "cut")
    run(source, colour_teacher, tmp_path / "cut")
    assert asked[0] == asked[1] == 2 * asked[2]


def test_an_edited_python_teacher_is_another_one(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "plus")
    file = Path(str(sys.modules["colour_teacher"].__file__))
    file.write_text(file.read_text().replace("32.0", "16.0"))
    with pytest.raises(LabellingError, match=r"teacher's source_sha256 differ"):
        run(source, colour_teacher, tmp_path / "plus", views=6)


def test_images_that_come_while_interrupted_are_labelled_and_shift_nothing(source, colour_teacher, tmp_path):
    part = Subset(source, range(3, 24))
    with cut_off("write_card"):
        run(part, colour_teacher, tmp_path / "cut")
    cut = run(source, colour_teacher, tmp_path / "cut")
    whole = run(source, colour_teacher, tmp_path / "whole")
    rows = cut.rows_of(whole.id_hashes)
    assert rows[:3].tolist() == [21, 22, 23]  # what was there keeps its rows
    np.testing.assert_array_equal(records_of(cut, rows), records_of(whole))
    assert check_integrity(tmp_path / "cut").whole


def test_fewer_views_than_an_interrupted_start_asked_for(source, colour_teacher, tmp_path):
    with cut_off("write_card"):
        run(source, colour_teacher, tmp_path / "cut", views=6)
    run(source, colour_teacher, tmp_path / "cut")
    run(source, colour_teacher, tmp_path / "whole")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
@pytest.mark.parametrize("part", ["part-00000-v0000", "part-00000-v0004"])
def test_a_part_that_is_deleted_is_labelled_again(source, colour_teacher, tmp_path, part, ending):
    run(source, colour_teacher, tmp_path / "plus")
    run(source, colour_teacher, tmp_path / "plus", views=6)
    before, records = bytes_of(tmp_path / "plus"), records_of(open_reinforcement(tmp_path / "plus"))
    (tmp_path / "plus" / f"{part}{ending}").unlink()
    again = run(source, colour_teacher, tmp_path / "plus", views=6)
    np.testing.assert_array_equal(records_of(again), records)
    assert check_integrity(tmp_path / "plus").whole
    if part.endswith("v0004"):  # without view 0 nothing tells whose rows they are, and all views are made anew
        assert bytes_of(tmp_path / "plus") == before


def test_what_an_error_advises_works(source, photos, colour_teacher, tmp_path):
    """Repair a bad image, restore a changed one, give the whole source: the same command then goes through."""
    bad, kept = photos / "green" / "01.png", (photos / "green" / "01.png").read_bytes()
    whole = bytes_of(run(source, colour_teacher, tmp_path / "whole").path)
    bad.write_bytes(b"not an image")
    with pytest.raises(LabellingError, match="cannot be decoded"):
        run(source, colour_teacher, tmp_path / "plus")
    bad.write_bytes(kept)
    assert bytes_of(run(source, colour_teacher, tmp_path / "plus").path) == whole
    bad.write_bytes((photos / "green" / "04.png").read_bytes())
    with pytest.raises(SourceError, match="has changed"):
        run(source, colour_teacher, tmp_path / "plus", views=6)
    bad.write_bytes(kept)
    with pytest.raises(LabellingError, match="give the whole source"):
        run(Subset(source, range(12)), colour_teacher, tmp_path / "plus", views=6)
    with pytest.raises(LabellingError, match="other settings"):
        run(source, colour_teacher, tmp_path / "plus", seed=3)
    grown = run(source, colour_teacher, tmp_path / "plus", views=6)
    assert grown.views == 6
    assert check_integrity(tmp_path / "plus").whole
    assert not (tmp_path / "plus" / ".work").exists()


def test_R16_bad_images_are_listed_and_never_shift_ids(source, photos, colour_teacher, tmp_path, capsys):
    whole = run(source, colour_teacher, tmp_path / "whole")
    (photos / "green" / "01.png").write_bytes(b"not an image")
    with pytest.raises(LabellingError, match=r"1 of 24 images cannot be decoded.*green/01\.png"):
        run(source, colour_teacher, tmp_path / "plus")
    store = run(source, colour_teacher, tmp_path / "plus", max_bad=0.05)
    assert "green/01.png: image cannot be decoded" in capsys.readouterr().err
    assert store.card.skipped == ("green/01.png",)
    bad = source.ids.index("green/01.png")
    assert store.absent_rows.tolist() == [bad]
    others = np.delete(np.arange(24), bad)
    np.testing.assert_array_equal(store.records(others, 1), whole.records(others, 1))


def test_two_ids_with_one_hash_are_named(source, colour_teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "id_hashes", lambda ids: np.array([len(i) for i in ids], np.uint64))
    with pytest.raises(SourceError, match="have the same 64-bit id hash"):
        run(source, colour_teacher, tmp_path / "plus")


def test_a_full_disk_is_refused_before_the_work(source, colour_teacher, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000))
    with pytest.raises(LabellingError, match=r"1\.0 kB are free"):
        run(source, colour_teacher, tmp_path / "plus")


def test_R12_a_second_process_is_refused_while_one_works(source, colour_teacher, tmp_path):
    (tmp_path / "plus").mkdir()
    with label._locked(tmp_path / "plus"), pytest.raises(LabellingError, match="another process is labelling"):
        run(source, colour_teacher, tmp_path / "plus")


def test_the_sanity_line_warns_of_a_teacher_that_knows_nothing(source, colour_teacher, tmp_path, capsys):
    run(source, colour_teacher, tmp_path / "right")
    assert "teacher agrees with your labels on 24 of 24 images" in capsys.readouterr().err
    shuffled = Relabelled(source, (source.labels + 1) % 3)
    run(shuffled, colour_teacher, tmp_path / "wrong")
    assert "warning: teacher agrees with your labels on 0 of 24" in capsys.readouterr().err


def test_a_folder_without_labels_works(photos, colour_teacher, tmp_path):
    source = open_source(f"folder:{photos}", labels=False)
    store = run(source, colour_teacher, tmp_path / "plus")
    assert store.classes == ("blue", "green", "red")
    assert (store.hard_labels == -1).all()


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(source, colour_teacher, tmp_path, capsys):
    label_source(
        source, spec_of(colour_teacher, source), POLICY, LabelSettings(views=8, k=2), tmp_path / "plus", dry_run=True
    )
    text = capsys.readouterr().out
    assert "24 samples x 8 views of 24 pixels; 192 views are missing" in text
    assert "views/s" in text
    assert "free" in text
    assert not (tmp_path / "plus").exists()


def test_the_folder_is_small(source, colour_teacher, tmp_path):
    store = run(source, colour_teacher, tmp_path / "plus")
    size = sum(path.stat().st_size for path in (tmp_path / "plus").iterdir())
    assert size <= store.codec.stride * 24 * 4 + 24 * 24 + 64 * 1024


def test_the_card_holds_no_time(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "plus")
    card = json.loads((tmp_path / "plus" / "reinforcement.json").read_text())
    assert card["teachers"][0]["uri"] == colour_teacher
    assert not [key for key in card if "time" in key or "date" in key]

"""Labelling views that are mixed: a record is about two images, whenever and wherever these are labelled themselves."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.labelling.by_hand import mix_of, said_of, view_of
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

from buttress.errors import LabellingError, SourceError
from buttress.labelling.label import label_source
from buttress.labelling.rerun import rerun, teacher_of
from buttress.labelling.row_images import RowImages
from buttress.labelling.row_memory import RowMemory, read_memory
from buttress.labelling.settings import LabelSettings
from buttress.pages.gallery import gallery
from buttress.sources import Subset, id_hash
from buttress.store.verify import check_integrity
from buttress.views.presets import preset

POLICY = preset("mix+randaug")
run = partial(labelled, policy=POLICY)


def partner_of(name, view, rows):
    mix = mix_of(POLICY, rows, name, view)
    return None if mix is None else mix.partner


def distant_partner(source):
    """A row beyond the first eight that one of these is mixed with."""
    partners = [partner_of(name, view, 24) for name in source.ids[:8] for view in range(4)]
    return next(partner for partner in partners if partner is not None and partner >= 8)


def test_the_store_holds_what_the_teacher_says_of_each_mixed_view(source, colour_teacher, tmp_path):
    store = run(source, colour_teacher, tmp_path / "plus")
    mixed = 0
    for row, name in enumerate(source.ids):
        view = row % 4
        mixed += partner_of(name, view, 24) not in (None, row)
        said = said_of(spec_of(colour_teacher, source), POLICY, source, name, view)
        values, ids, _ = store.targets(np.array([row]), view)
        np.testing.assert_allclose(values[0], said[ids[0]], rtol=0.05, atol=1e-5)
    assert mixed > 12
    assert store.card.source.rows == 24
    assert check_integrity(tmp_path / "plus").whole


@pytest.mark.parametrize("order", ["kept", "turned"])
def test_rows_and_views_added_later_have_partners_among_the_first_rows(source, colour_teacher, tmp_path, order):
    out, half = tmp_path / "plus", Subset(source, range(0, 24, 2))
    run(half, colour_teacher, out)
    there = parts_of(out)
    grown = run(source if order == "kept" else Subset(source, range(23, -1, -1)), colour_teacher, out, views=6)
    assert there.items() <= parts_of(out).items()
    assert (grown.rows, grown.views, grown.card.source.rows) == (24, 6, 12)
    fresh = run(half, colour_teacher, tmp_path / "fresh", views=6)
    np.testing.assert_array_equal(records_of(grown, np.arange(12)), records_of(fresh))
    for view in range(6):
        for name in source.ids[1::2]:
            row = int(grown.rows_of(np.array([id_hash(name)], np.uint64))[0])
            assert row >= 12
            said = said_of(spec_of(colour_teacher, source), POLICY, source, name, view, half.ids)
            values, ids, _ = grown.targets(np.array([row]), view)
            np.testing.assert_allclose(values[0], said[ids[0]], rtol=0.05, atol=1e-5)
    assert check_integrity(out).whole


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("step", ["write_part", "write_index", "write_probes", "write_card"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_R11_cut_off_at_any_write_the_second_start_ends_the_same(
    source, photos, colour_teacher, tmp_path, step, moment
):
    (photos / "green" / "01.png").write_bytes(b"not an image")
    run(source, colour_teacher, tmp_path / "whole", max_bad=0.1)
    with cut_off(step, moment):
        run(source, colour_teacher, tmp_path / "cut", max_bad=0.1)
    run(source, colour_teacher, tmp_path / "cut", max_bad=0.1)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")
    assert check_integrity(tmp_path / "cut").whole
    assert not (tmp_path / "cut" / ".work").exists()


@pytest.mark.usefixtures("small_parts")
def test_blocks_of_an_interrupted_start_are_not_labelled_again(source, colour_teacher, tmp_path):
    with cut_off("write_part"):
        run(source, colour_teacher, tmp_path / "cut")
    with blocks_labelled() as blocks:
        run(source, colour_teacher, tmp_path / "cut")
    assert {block.part for block in blocks} == {"part-00001-v0000", "part-00002-v0000"}


@pytest.mark.usefixtures("small_parts")
def test_images_that_come_while_interrupted_are_nobodys_partner(source, colour_teacher, tmp_path):
    part = Subset(source, range(3, 24))
    before = run(part, colour_teacher, tmp_path / "part")
    with cut_off("write_card"):
        run(part, colour_teacher, tmp_path / "cut")
    (tmp_path / "cut" / "part-00001-v0000.json").unlink()
    cut = run(source, colour_teacher, tmp_path / "cut")
    assert (cut.rows, cut.card.source.rows) == (24, 21)
    np.testing.assert_array_equal(records_of(cut, np.arange(21)), records_of(before))
    assert check_integrity(tmp_path / "cut").whole


@pytest.mark.usefixtures("small_parts")
def test_parts_of_rows_that_nobody_remembers_are_labelled_again(source, colour_teacher, tmp_path):
    """Without card and memory nothing tells whose rows the partners were: here they were others."""
    with cut_off("write_card"):
        run(Subset(source, range(20)), colour_teacher, tmp_path / "cut")
    (tmp_path / "cut" / ".work" / "rows").unlink()
    run(source, colour_teacher, tmp_path / "cut")
    run(source, colour_teacher, tmp_path / "whole")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_an_interrupted_start_without_a_part_may_begin_anew(source, colour_teacher, tmp_path):
    with cut_off("run_blocks"):
        run(source, colour_teacher, tmp_path / "cut")
    fewer = Subset(source, range(20))
    run(fewer, colour_teacher, tmp_path / "cut")
    run(fewer, colour_teacher, tmp_path / "whole")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def lost(store, source, bad):
    """Where records must be absent, [V, N]: views of a bad image, and those that are mixed with one."""
    partners = [[partner_of(name, view, store.card.source.rows) for name in source.ids] for view in range(store.views)]
    return np.array([[row in bad or partner in bad for row, partner in enumerate(line)] for line in partners])


def absent(store):
    return np.array([store.codec.absent(records_N) for records_N in records_of(store)])


def test_R16_a_view_that_is_mixed_with_a_bad_image_is_absent_and_no_other(
    source, photos, colour_teacher, tmp_path, capsys
):
    whole = run(source, colour_teacher, tmp_path / "whole")
    (photos / "green" / "01.png").write_bytes(b"not an image")
    with pytest.raises(LabellingError, match=r"1 of 24 images cannot be decoded.*green/01\.png"):
        run(source, colour_teacher, tmp_path / "plus")
    store = run(source, colour_teacher, tmp_path / "plus", max_bad=0.05)
    assert "green/01.png: image cannot be decoded" in capsys.readouterr().err
    bad = source.ids.index("green/01.png")
    expected = lost(store, source, {bad})
    assert expected.sum() > 4
    np.testing.assert_array_equal(absent(store), expected)
    assert store.card.skipped == ("green/01.png",)
    np.testing.assert_array_equal(records_of(store)[~expected], records_of(whole)[~expected])
    assert check_integrity(tmp_path / "plus").whole


def test_a_partner_that_is_repaired_before_the_end_is_labelled_after_all(source, photos, colour_teacher, tmp_path):
    whole = bytes_of(run(source, colour_teacher, tmp_path / "whole").path)
    path = photos / "green" / "01.png"
    kept = path.read_bytes()
    path.write_bytes(b"not an image")
    with pytest.raises(LabellingError, match="cannot be decoded"):
        run(source, colour_teacher, tmp_path / "plus")
    path.write_bytes(kept)
    assert bytes_of(run(source, colour_teacher, tmp_path / "plus").path) == whole


@pytest.mark.usefixtures("small_parts")
def test_a_partner_that_is_repaired_after_a_part_was_written_stays_out(source, photos, colour_teacher, tmp_path):
    """The first part has records that are absent for it, and stays: so it is absent in all views of all parts."""
    bad = distant_partner(source)
    path = photos / source.ids[bad]
    kept = path.read_bytes()
    path.write_bytes(b"not an image")
    with cut_off("write_part", "after"):
        run(source, colour_teacher, tmp_path / "plus", max_bad=0.05)
    path.write_bytes(kept)
    store = run(source, colour_teacher, tmp_path / "plus", max_bad=0.05)
    np.testing.assert_array_equal(absent(store), lost(store, source, {bad}))
    assert store.card.skipped == (source.ids[bad],)
    assert check_integrity(tmp_path / "plus").whole
    grown = run(source, colour_teacher, tmp_path / "plus", views=8, max_bad=0.05)
    np.testing.assert_array_equal(absent(grown), lost(grown, source, {bad}))
    assert check_integrity(tmp_path / "plus").whole


@pytest.mark.usefixtures("small_parts")
def test_a_partner_that_changed_after_a_part_was_written_is_refused(source, photos, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "whole")
    partner = distant_partner(source)
    path = photos / source.ids[partner]
    kept = path.read_bytes()
    with cut_off("write_part", "after"):
        run(source, colour_teacher, tmp_path / "cut")
    path.write_bytes((photos / source.ids[0]).read_bytes())
    with pytest.raises(SourceError, match=f"{source.ids[partner]}: the image has changed since other views"):
        run(source, colour_teacher, tmp_path / "cut")
    path.write_bytes(kept)
    run(source, colour_teacher, tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_rows_added_later_are_not_mixed_with_a_changed_image(source, photos, colour_teacher, tmp_path):
    run(Subset(source, range(12)), colour_teacher, tmp_path / "plus")
    partner = next(
        partner for name in source.ids[12:] for view in range(4) if (partner := partner_of(name, view, 12)) is not None
    )
    path = photos / source.ids[partner]
    kept = path.read_bytes()
    path.write_bytes((photos / source.ids[13]).read_bytes())
    with pytest.raises(SourceError, match=f"{source.ids[partner]}: the image has changed since other views"):
        run(source, colour_teacher, tmp_path / "plus")
    path.write_bytes(kept)
    assert run(source, colour_teacher, tmp_path / "plus").rows == 24


def test_an_image_that_changes_within_a_block_is_refused(source, colour_teacher, tmp_path):
    class Turning(Subset):
        """Gives another image for the first sample at every look."""

        looks = 0

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            self.looks += index == 0
            return super().__getitem__(self.looks % 2) if index == 0 else sample

    turning = Turning(source, range(24))
    with pytest.raises(SourceError, match=f"{source.ids[0]}: the image has changed while it was labelled"):
        run(turning, colour_teacher, tmp_path / "plus", views_per_block=400)


def test_partners_that_are_away_are_asked_for(source, colour_teacher, tmp_path, capsys):
    run(Subset(source, range(12)), colour_teacher, tmp_path / "plus")
    with pytest.raises(
        LabellingError, match=r"4 of the images that views are mixed with are not in .*the whole source"
    ):
        run(Subset(source, range(4, 24)), colour_teacher, tmp_path / "plus")
    capsys.readouterr()
    run(Subset(source, range(4, 12)), colour_teacher, tmp_path / "plus")
    assert "nothing to do" in capsys.readouterr().err


def test_a_block_by_itself_asks_for_the_whole_source_too(source):
    images = RowImages(source, np.array([0, -1]), np.array([5, 6], np.uint64), frozenset())
    assert images.load(0)[1] == 5
    with pytest.raises(LabellingError, match=r"row 1: views are mixed with its image, which is not in .*whole source"):
        images.load(1)


def test_a_damaged_memory_is_none(tmp_path):
    memory = RowMemory.of(np.arange(9, dtype=np.uint64))
    memory.learn(np.array([2, 7]), np.arange(9, dtype=np.uint64) * 11)
    memory.write(tmp_path / "rows")
    again = read_memory(tmp_path / "rows")
    assert again is not None
    contents, known = np.full(12, 5, np.uint64), np.arange(12) == 2
    again.recall(contents, known)
    assert contents.tolist() == [5, 5, 5, 5, 5, 5, 5, 77, 5, 5, 5, 5]  # row 2 was known already
    assert np.flatnonzero(known).tolist() == [2, 7]
    data = (tmp_path / "rows").read_bytes()
    for place in (0, len(data) // 2, len(data) - 1):
        damage(tmp_path / "rows", place)
        assert read_memory(tmp_path / "rows") is None
        (tmp_path / "rows").write_bytes(data)
    (tmp_path / "rows").write_bytes(data[:20])
    assert read_memory(tmp_path / "rows") is None
    assert read_memory(tmp_path / "absent") is None


def test_a_damaged_block_of_partners_is_not_made_again_under_other_rows(source, colour_teacher, tmp_path):
    out = tmp_path / "plus"
    run(Subset(source, range(0, 24, 2)), colour_teacher, out)
    run(source, colour_teacher, out)
    kept = bytes_of(out)
    for name, mended in (("part-00001-v0000", True), ("part-00000-v0000", False)):
        damage(out / f"{name}.safetensors")
        if mended:
            run(source, colour_teacher, out)
            assert bytes_of(out) == kept
        else:
            with pytest.raises(LabellingError, match=r"rows 0 to 11 are damaged, and views of all rows are mixed"):
                run(source, colour_teacher, out)


def test_a_store_of_one_block_is_mended(source, colour_teacher, tmp_path):
    run(source, colour_teacher, tmp_path / "plus")
    kept = bytes_of(tmp_path / "plus")
    (tmp_path / "plus" / "part-00000-v0000.json").unlink()
    run(source, colour_teacher, tmp_path / "plus")
    assert bytes_of(tmp_path / "plus") == kept


def test_the_teacher_says_the_same_again_of_the_views_that_can_be_drawn(source, photos, colour_teacher, tmp_path):
    (photos / source.ids[7]).write_bytes(b"not an image")
    store = run(source, colour_teacher, tmp_path / "plus", max_bad=0.05)
    teacher = teacher_of(store).open()
    again = rerun(source, store, np.arange(24), teacher, 96)
    assert again.views == 23 * 4
    assert again.largest < 0.02
    part = Subset(source, range(0, 24, 3))
    again = rerun(part, store, np.arange(0, 24, 3), teacher, 32)
    assert 20 < again.views <= 32
    assert again.largest < 0.02
    turned = rerun(Subset(source, range(23, -1, -1)), store, np.arange(23, -1, -1), teacher, 40)
    assert turned.largest < 0.02


def test_the_gallery_shows_views_as_the_teacher_saw_them(source, photos, colour_teacher, tmp_path):
    (photos / source.ids[7]).write_bytes(b"not an image")
    store = run(source, colour_teacher, tmp_path / "plus", max_bad=0.05)
    part = Subset(source, range(0, 24, 2))
    images, shown = gallery(part, part.labels, store, size=24, count=12)
    assert len(images) == len(shown) >= 8
    here = set(part.ids)
    for image, said in zip(images, shown, strict=True):
        partner = partner_of(said["id"], said["view"], 24)
        assert partner is None or source.ids[partner] in here
        np.testing.assert_array_equal(image, view_of(POLICY, source, said["id"], said["view"])[0])


def test_a_dry_run_draws_mixed_views(source, photos, colour_teacher, tmp_path, capsys):
    (photos / source.ids[7]).write_bytes(b"not an image")
    spec, settings = spec_of(colour_teacher, source), LabelSettings(views=8, k=2)
    label_source(source, spec, POLICY, settings, tmp_path / "plus", dry_run=True)
    assert "192 views are missing" in capsys.readouterr().out

"""Labelling views that are mixed: a record is about two images, whenever and wherever these are labelled themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from buttress.errors import LabellingError, SourceError
from buttress.labelling import block as block_module
from buttress.labelling import label, plan, pool
from buttress.labelling.label import label_source
from buttress.labelling.rerun import rerun, teacher_of
from buttress.labelling.row_images import RowImages
from buttress.labelling.row_memory import RowMemory, read_memory
from buttress.labelling.settings import LabelSettings
from buttress.loading.batches import ReinforcedBatches
from buttress.loading.order import view_of_epoch
from buttress.pages.gallery import gallery
from buttress.sources import Subset, id_hash, open_source
from buttress.store.reader import open_reinforcement
from buttress.store.verify import check_integrity
from buttress.store.writer import write_part
from buttress.teachers.teacher import TeacherSpec
from buttress.views.presets import preset
from buttress.views.render import Renderer

POLICY = preset("mix+randaug")
SMALL = {"views": 4, "k": 2, "batch": 5, "views_per_block": 12, "workers": 0}


def spec_of(uri, source):
    return TeacherSpec(uri=uri, source_classes=source.classes)


def run(source, teacher, out, **settings):
    label_source(source, spec_of(teacher, source), POLICY, LabelSettings(**{**SMALL, **settings}), out)
    return open_reinforcement(out)


def bytes_of(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pictures_of(source, names):
    """Image and id hash of row r, which is the sample `names[r]`."""

    def picture(row):
        sample = source[source.ids.index(names[row])]
        return sample.data, id_hash(sample.id)

    return picture


def view_of(source, names, name, view, size=24):
    """A view of a sample, drawn by hand; `names` are those of the M rows."""
    picture = source[source.ids.index(name)].data, id_hash(name)
    return Renderer(POLICY, 0, len(names)).views(*picture, [view], size, pictures_of(source, names))


def partner_of(name, view, rows):
    mix = Renderer(POLICY, 0, rows).mix(id_hash(name), view)
    return None if mix is None else mix.partner


def distant_partner(source):
    """A row beyond the first eight that one of these is mixed with."""
    partners = [partner_of(name, view, 24) for name in source.ids[:8] for view in range(4)]
    return next(partner for partner in partners if partner is not None and partner >= 8)


def cut_off(monkeypatch, step, *arguments, **settings):
    """A start that ends just before a write."""
    with monkeypatch.context() as patch:
        patch.setattr(label, step, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(*arguments, **settings)


@pytest.fixture
def source(photos):
    return open_source(f"folder:{photos}")


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 8 rows, so that most partners lie in another one."""
    monkeypatch.setattr(plan, "ROWS_PER_PART", 8)


def test_the_store_holds_what_the_teacher_says_of_each_mixed_view(source, colour_teacher, tmp_path):
    store = run(source, colour_teacher, tmp_path / "plus")
    teacher, mixed = spec_of(colour_teacher, source).open(), 0
    for row, name in enumerate(source.ids):
        view = row % 4
        mixed += partner_of(name, view, 24) not in (None, row)
        said = teacher.probabilities(view_of(source, source.ids, name, view))[0]
        values, ids, _ = store.targets(np.array([row]), view)
        np.testing.assert_allclose(values[0], said[ids[0]], rtol=0.05, atol=1e-5)
    assert mixed > 12
    assert store.card.source.rows == 24
    assert check_integrity(tmp_path / "plus").whole


@pytest.mark.usefixtures("small_parts")
def test_R9_the_bytes_do_not_depend_on_workers_or_order(source, colour_teacher, tmp_path, monkeypatch):
    run(source, colour_teacher, tmp_path / "serial")
    run(source, colour_teacher, tmp_path / "pool", workers=2)
    forwards = pool.run_blocks
    monkeypatch.setattr(label, "run_blocks", lambda blocks, job, n: forwards(list(reversed(blocks)), job, n))
    run(source, colour_teacher, tmp_path / "backwards")
    assert bytes_of(tmp_path / "serial") == bytes_of(tmp_path / "pool") == bytes_of(tmp_path / "backwards")


def test_R14_students_see_the_very_pixels_that_the_teacher_saw(source, colour_teacher, tmp_path, monkeypatch):
    import colour_teacher as module

    seen: list[np.ndarray] = []
    quick = module.look

    def watched(views_BHWC):
        seen.append(views_BHWC.copy())
        return quick(views_BHWC)

    monkeypatch.setattr(module, "look", watched)
    monkeypatch.setattr(watched, "size", quick.size, raising=False)
    monkeypatch.setattr(watched, "classes", quick.classes, raising=False)
    store = run(source, colour_teacher, tmp_path / "plus")
    teacher_RVHWC = np.concatenate(seen)[-24 * 4 :].reshape(24, 4, 24, 24, 3)  # what came before was the sanity look
    batches = ReinforcedBatches(Subset(source, range(23, -1, -1)), store, size=24, p=1.0)
    for epoch in range(8):
        student = batches.batch(range(24), epoch).views_BHWC
        np.testing.assert_array_equal(student[::-1], teacher_RVHWC[:, view_of_epoch(0, epoch, 4)])


@pytest.mark.parametrize("order", ["kept", "turned"])
def test_rows_and_views_added_later_have_partners_among_the_first_rows(source, colour_teacher, tmp_path, order):
    out, half = tmp_path / "plus", Subset(source, range(0, 24, 2))
    run(half, colour_teacher, out)
    there = {name: data for name, data in bytes_of(out).items() if name.startswith("part-")}
    grown = run(source if order == "kept" else Subset(source, range(23, -1, -1)), colour_teacher, out, views=6)
    assert {name: bytes_of(out)[name] for name in there} == there
    assert (grown.rows, grown.views, grown.card.source.rows) == (24, 6, 12)
    fresh = run(half, colour_teacher, tmp_path / "fresh", views=6)
    teacher = spec_of(colour_teacher, source).open()
    for view in range(6):
        np.testing.assert_array_equal(grown.records(np.arange(12), view), fresh.records(np.arange(12), view))
        for name in source.ids[1::2]:
            row = int(grown.rows_of(np.array([id_hash(name)], np.uint64))[0])
            assert row >= 12
            said = teacher.probabilities(view_of(source, half.ids, name, view))[0]
            values, ids, _ = grown.targets(np.array([row]), view)
            np.testing.assert_allclose(values[0], said[ids[0]], rtol=0.05, atol=1e-5)
    assert check_integrity(out).whole


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("step", ["write_part", "write_index", "write_probes", "write_card"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_R11_cut_off_at_any_write_the_second_start_ends_the_same(
    source, photos, colour_teacher, tmp_path, monkeypatch, step, moment
):
    (photos / "green" / "01.png").write_bytes(b"not an image")
    run(source, colour_teacher, tmp_path / "whole", max_bad=0.1)
    really = getattr(label, step)

    def then_cut_off(*arguments, **named):
        if moment == "after":
            really(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(label, step, then_cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(source, colour_teacher, tmp_path / "cut", max_bad=0.1)
    run(source, colour_teacher, tmp_path / "cut", max_bad=0.1)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")
    assert check_integrity(tmp_path / "cut").whole
    assert not (tmp_path / "cut" / ".work").exists()


@pytest.mark.usefixtures("small_parts")
def test_blocks_of_an_interrupted_start_are_not_labelled_again(source, colour_teacher, tmp_path, monkeypatch):
    cut_off(monkeypatch, "write_part", source, colour_teacher, tmp_path / "cut")
    labelled: list[str] = []
    really = block_module._label

    def noted(block, job):
        labelled.append(block.part)
        return really(block, job)

    monkeypatch.setattr(block_module, "_label", noted)
    run(source, colour_teacher, tmp_path / "cut")
    assert set(labelled) == {"part-00001-v0000", "part-00002-v0000"}


@pytest.mark.usefixtures("small_parts")
def test_images_that_come_while_interrupted_are_nobodys_partner(source, colour_teacher, tmp_path, monkeypatch):
    part = Subset(source, range(3, 24))
    run(part, colour_teacher, tmp_path / "part")
    cut_off(monkeypatch, "write_card", part, colour_teacher, tmp_path / "cut")
    (tmp_path / "cut" / "part-00001-v0000.json").unlink()
    cut = run(source, colour_teacher, tmp_path / "cut")
    assert (cut.rows, cut.card.source.rows) == (24, 21)
    part_store = open_reinforcement(tmp_path / "part")
    for view in range(4):
        np.testing.assert_array_equal(cut.records(np.arange(21), view), part_store.records(np.arange(21), view))
    assert check_integrity(tmp_path / "cut").whole


@pytest.mark.usefixtures("small_parts")
def test_parts_of_rows_that_nobody_remembers_are_labelled_again(source, colour_teacher, tmp_path, monkeypatch):
    """Without card and memory nothing tells whose rows the partners were: here they were others."""
    cut_off(monkeypatch, "write_card", Subset(source, range(20)), colour_teacher, tmp_path / "cut")
    (tmp_path / "cut" / ".work" / "rows").unlink()
    run(source, colour_teacher, tmp_path / "cut")
    run(source, colour_teacher, tmp_path / "whole")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_an_interrupted_start_without_a_part_may_begin_anew(source, colour_teacher, tmp_path, monkeypatch):
    cut_off(monkeypatch, "run_blocks", source, colour_teacher, tmp_path / "cut")
    fewer = Subset(source, range(20))
    run(fewer, colour_teacher, tmp_path / "cut")
    run(fewer, colour_teacher, tmp_path / "whole")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def lost(store, source, bad):
    """Where records must be absent, [V, N]: views of a bad image, and those that are mixed with one."""
    partners = [[partner_of(name, view, store.card.source.rows) for name in source.ids] for view in range(store.views)]
    return np.array([[row in bad or partner in bad for row, partner in enumerate(line)] for line in partners])


def absent(store):
    rows = np.arange(store.rows)
    return np.array([store.codec.absent(store.records(rows, view)) for view in range(store.views)])


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
    for view in range(4):
        there = np.flatnonzero(~expected[view])
        np.testing.assert_array_equal(store.records(there, view), whole.records(there, view))
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
def test_a_partner_that_is_repaired_after_a_part_was_written_stays_out(
    source, photos, colour_teacher, tmp_path, monkeypatch
):
    """The first part has records that are absent for it, and stays: so it is absent in all views of all parts."""
    bad = distant_partner(source)
    path = photos / source.ids[bad]
    kept, really = path.read_bytes(), write_part
    path.write_bytes(b"not an image")

    def after_one(*arguments, **named):
        really(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(label, "write_part", after_one)
        with pytest.raises(KeyboardInterrupt):
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
def test_a_partner_that_changed_after_a_part_was_written_is_refused(
    source, photos, colour_teacher, tmp_path, monkeypatch
):
    run(source, colour_teacher, tmp_path / "whole")
    partner = distant_partner(source)
    path = photos / source.ids[partner]
    kept, really = path.read_bytes(), write_part

    def after_one(*arguments, **named):
        really(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(label, "write_part", after_one)
        with pytest.raises(KeyboardInterrupt):
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


def test_an_image_that_changes_within_a_block_is_refused(source, colour_teacher, tmp_path, monkeypatch):
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


def test_partners_that_are_away_are_asked_for(source, colour_teacher, tmp_path):
    run(Subset(source, range(12)), colour_teacher, tmp_path / "plus")
    with pytest.raises(
        LabellingError, match=r"4 of the images that views are mixed with are not in .*the whole source"
    ):
        run(Subset(source, range(4, 24)), colour_teacher, tmp_path / "plus")
    assert "nothing to do" in capture(lambda: run(Subset(source, range(4, 12)), colour_teacher, tmp_path / "plus"))


def capture(action):
    import contextlib
    import io

    with contextlib.redirect_stderr(io.StringIO()) as text:
        action()
    return text.getvalue()


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
    data = bytearray((tmp_path / "rows").read_bytes())
    for place in (0, len(data) // 2, len(data) - 1):
        data[place] ^= 1
        (tmp_path / "rows").write_bytes(data)
        assert read_memory(tmp_path / "rows") is None
        data[place] ^= 1
    (tmp_path / "rows").write_bytes(data[:20])
    assert read_memory(tmp_path / "rows") is None
    assert read_memory(tmp_path / "absent") is None


def test_a_damaged_block_of_partners_is_not_made_again_under_other_rows(source, colour_teacher, tmp_path):
    out = tmp_path / "plus"
    run(Subset(source, range(0, 24, 2)), colour_teacher, out)
    run(source, colour_teacher, out)
    kept = bytes_of(out)
    for name, mended in (("part-00001-v0000", True), ("part-00000-v0000", False)):
        data = bytearray(kept[f"{name}.safetensors"])
        data[-1] ^= 1
        (out / f"{name}.safetensors").write_bytes(data)
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
        np.testing.assert_array_equal(image, view_of(source, source.ids, said["id"], said["view"])[0])


def test_a_dry_run_draws_mixed_views(source, photos, colour_teacher, tmp_path, capsys):
    (photos / source.ids[7]).write_bytes(b"not an image")
    spec, settings = spec_of(colour_teacher, source), LabelSettings(views=8, k=2)
    label_source(source, spec, POLICY, settings, tmp_path / "plus", dry_run=True)
    assert "192 views are missing" in capsys.readouterr().out

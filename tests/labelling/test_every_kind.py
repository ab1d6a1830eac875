"""Plain and mixed views, one teacher and several: the same bytes by any workers, and views that students see again."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from tests.labelling.small_labelling import bytes_of, labelled

from buttress.labelling import label, pool
from buttress.loading.batches import ReinforcedBatches
from buttress.loading.order import view_of_epoch
from buttress.sources import Relabelled, Subset
from buttress.store.verify import check_integrity
from buttress.views.presets import preset

BAD = "green/01.png"


@dataclass(frozen=True)
class Kind:
    """A labelling, by two teachers where its settings have weights.

    Args:
        policy: name of its preset.
        settings: of the labelling.
        small_parts: rows are cut into parts of 8.
        some_labels: every third image has no label.
        bad: one image does not decode.
    """

    policy: str
    settings: dict[str, Any] = field(default_factory=dict)
    small_parts: bool = False
    some_labels: bool = False
    bad: bool = False


KINDS = {
    "plain": Kind("randaug"),
    "mixed": Kind("mix+randaug", small_parts=True),
    "truth": Kind("randaug", {"k": 1, "truth": True}, some_labels=True),
    "several": Kind("randaug", {"weights": (1.0, 3.0)}),
    "mixed+several": Kind("mix", {"weights": (3.0, 1.0), "truth": True, "max_bad": 0.05}, bad=True),
}


def run_of(kind, uris):
    teacher = uris if "weights" in kind.settings else uris[0]
    return partial(labelled, teacher=teacher, policy=preset(kind.policy), **kind.settings)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_R9_the_bytes_do_not_depend_on_workers_or_order(kind, uris, source, photos, tmp_path, monkeypatch, request):
    """One process that labels forwards against two that label backwards."""
    if kind.small_parts:
        request.getfixturevalue("small_parts")
    if kind.some_labels:
        source = Relabelled(source, np.where(np.arange(24) % 3 == 1, -1, source.labels))
    if kind.bad:
        (photos / BAD).write_bytes(b"not an image")
    run, forwards = run_of(kind, uris), pool.run_blocks
    order: list[tuple[str, int]] = []
    run(source, out=tmp_path / "serial")

    def backwards(blocks, job, workers):
        order.extend((block.part, block.number) for block in reversed(blocks))
        return forwards(list(reversed(blocks)), job, workers)

    monkeypatch.setattr(label, "run_blocks", backwards)
    run(source, out=tmp_path / "pool", workers=2)
    assert len(order) > 7 and order != sorted(order)
    assert bytes_of(tmp_path / "serial") == bytes_of(tmp_path / "pool")
    assert check_integrity(tmp_path / "serial").whole
    monkeypatch.setattr(label, "on_gpu", lambda teacher: True)  # there others draw its views
    monkeypatch.setattr(label, "run_blocks", lambda *_: pytest.fail("not ahead"))
    run(source, out=tmp_path / "ahead", workers=2)
    assert bytes_of(tmp_path / "serial") == bytes_of(tmp_path / "ahead")


@pytest.mark.parametrize("name", ["plain", "mixed", "several", "mixed+several"])
def test_R14_students_see_the_very_pixels_that_the_teacher_saw(name, uris, source, tmp_path, monkeypatch):
    import colour_teacher as module

    seen: list[np.ndarray] = []
    quick = module.look

    def watched(views_BHWC):
        seen.append(views_BHWC.copy())
        return quick(views_BHWC)

    monkeypatch.setattr(module, "look", watched)
    monkeypatch.setattr(watched, "size", quick.size, raising=False)
    monkeypatch.setattr(watched, "classes", quick.classes, raising=False)
    store = run_of(KINDS[name], uris)(source, out=tmp_path / "plus")
    teacher_RVHWC = np.concatenate(seen)[-24 * 4 :].reshape(24, 4, 24, 24, 3)  # what came before was the sanity look
    batches = ReinforcedBatches(Subset(source, range(23, -1, -1)), store, size=24, p=1.0)
    for epoch in range(8):
        student = batches.batch(range(24), epoch).views_BHWC
        np.testing.assert_array_equal(student[::-1], teacher_RVHWC[:, view_of_epoch(0, epoch, 4)])

"""Shards of the WebDataset layout: keys, labels, class names, patterns, and what is refused."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tars import header, padded, png, write_tar
from tests.sources.every_source import refusal, samples

from buttress.sources import Relabelled, Subset, UndecodableImage, open_source


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of four samples."""
    for shard in range(3):
        members: dict[str, bytes] = {}
        for number in range(4):
            members[f"{number:04d}.png"] = png(10 * shard + number)
            members[f"{number:04d}.cls"] = b"%d" % ((shard + number) % 3)
        write_tar(tmp_path / "shards" / f"train-{shard:03d}.tar", members)
    return tmp_path / "shards"


@pytest.mark.parametrize("pattern", ["train-{000..002}.tar", "train-{000,001,002}.tar", "train-*.tar", "", "*-00?.tar"])
def test_patterns(shards: Path, pattern: str) -> None:
    uri = f"wds:{shards / pattern}"
    source = open_source(uri)
    assert (source.uri, len(source), source.classes) == (uri, 12, ("0", "1", "2"))
    assert source.ids[:5] == (*(f"train-000.tar/{n:04d}" for n in range(4)), "train-001.tar/0000")
    assert source.labels.tolist() == [(shard + number) % 3 for shard in range(3) for number in range(4)]
    assert [sample.data for sample in samples(source)] == [png(10 * shard + n) for shard in range(3) for n in range(4)]
    assert source[-1] == source[11]


def test_the_order_of_the_pattern_is_kept_and_ids_belong_to_the_shard(shards: Path) -> None:
    source = open_source(f"wds:{shards}/train-{{002..000}}.tar")
    assert source.ids[0] == "train-002.tar/0000"
    one = open_source(f"wds:{shards}/train-001.tar")
    assert [sample.data for sample in samples(one)] == [sample.data for sample in samples(source)[4:8]]
    # the same images in other shards are other samples: the shard is part of the name
    write_tar(shards / "all.tar", {f"{n:04d}.png": png(n) for n in range(4)})
    assert not set(open_source(f"wds:{shards}/all.tar").ids) & set(source.ids)


def test_keys_end_at_the_first_dot_of_the_last_component(tmp_path: Path) -> None:
    files = {
        "v1.0/a.b.jpg": b"no image: its extension is b.jpg",
        "v1.0/a.JPG": b"1",
        "v1.0/a.json": b'{"label": 5}',
        "v1.0/c.seg.png": b"mask",
        "d/a.webp": b"2",
        "d/a.txt": b"caption",
        "e.json": b'{"about": "the shard"}',
    }
    source = open_source(f"wds:{write_tar(tmp_path / 's.tar', files)}")
    assert source.ids == ("s.tar/v1.0/a", "s.tar/d/a")
    assert [(sample.data, sample.label) for sample in samples(source)] == [(b"1", 5), (b"2", None)]
    assert source.classes == tuple("012345")


def test_members_of_a_sample_need_not_be_neighbours_and_cls_comes_before_json(tmp_path: Path) -> None:
    files = {"a.cls": b"1", "b.cls": b"0", "b.jpg": b"B", "a.jpg": b"A", "b.json": b'{"label": 7}'}
    source = open_source(f"wds:{write_tar(tmp_path / 's.tar', files)}")
    assert [(sample.id, sample.data, sample.label) for sample in samples(source)] == [
        ("s.tar/a", b"A", 1),
        ("s.tar/b", b"B", 0),
    ]


def test_class_names_from_a_file(shards: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("cat\n dog \nnot seen\nfrog\n\n")
    source = open_source(f"wds:{shards}?classes={names}")
    assert source.classes == ("cat", "dog", "not seen", "frog")
    assert source.labels.max() == 2
    assert open_source(f"wds:{shards}?classes={names}", labels=False).classes is None
    names.write_text("cat\ndog\n")
    assert "label 2 is outside the 2 classes" in refusal(f"wds:{shards}?classes={names}")
    names.write_text("cat\ndog\ncat\n")
    assert "two classes are named 'cat'" in refusal(f"wds:{shards}?classes={names}")
    names.write_bytes(b"\xff")
    assert "cannot be read as class names" in refusal(f"wds:{shards}?classes={names}")
    assert "cannot be read as class names" in refusal(f"wds:{shards}?classes={tmp_path}/absent")
    assert "unknown key 'class' (known are classes); did you mean classes?" in refusal(f"wds:{shards}?class=x")


def test_unlabelled(tmp_path: Path) -> None:
    source = open_source(f"wds:{write_tar(tmp_path / 's.tar', {'a.jpg': b'1', 'b.jpg': b'2'})}")
    assert (source.classes, source[0].label, source.labels.tolist()) == (None, None, [-1, -1])


def test_R16_a_label_without_an_image_is_a_broken_image_in_its_place(tmp_path: Path) -> None:
    files = {"a.jpg": b"1", "a.cls": b"0", "b.cls": b"1", "c.json": b'{"label": 1}', "d.jpg": b"4", "d.cls": b"-1"}
    source = open_source(f"wds:{write_tar(tmp_path / 's.tar', files)}")
    assert source.ids == ("s.tar/a", "s.tar/b", "s.tar/c", "s.tar/d")
    assert source.labels.tolist() == [0, 1, 1, -1]
    for index in (1, 2):
        with pytest.raises(UndecodableImage, match=rf"'{source.ids[index]}' has no image beside its label"):
            source[index]
    assert source[3].data == b"4"


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ([("a.jpg", b""), ("a.png", b"")], "two members of one sample, 'a.jpg' and 'a.png'"),
        ([("a.jpg", b""), ("b.jpg", b""), ("./a.jpg", b"")], "two members of one sample"),
        ([("a.cls", b"1"), ("a.CLS", b"2"), ("a.jpg", b"")], "make the shard anew with one cls each"),
        ([("a.jpg", b""), ("a.cls", b"cat")], "'a.cls' is not an integer, 0 and up"),
        ([("a.jpg", b""), ("a.json", b'{"label": "cat"}')], "'a.json' is not an object with an integer 'label'"),
        ([("a.jpg", b""), ("a.cls", b"70000")], "label 70000 does not look like a class number"),
        ([("a.txt", b"")], "found 0 samples and 1 other files in 1 shards"),
        ([("a.jpg", b""), ("../b.jpg", b"")], "leads out of the archive"),
    ],
)
def test_R5_shards_that_are_refused(tmp_path: Path, files: list[tuple[str, bytes]], match: str) -> None:
    message = refusal(f"wds:{write_tar(tmp_path / 's.tar', files)}")
    assert match in message
    assert str(tmp_path) in message


def test_bad_labels_do_not_matter_to_who_wants_none(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.jpg": b"1", "a.cls": b"cat"})
    assert open_source(f"wds:{path}", labels=False).labels.tolist() == [-1]


def test_patterns_that_mean_nothing_or_too_much(shards: Path) -> None:
    assert "train-003.tar: cannot be read (No such file" in refusal(f"wds:{shards}/train-{{000..003}}.tar")
    assert "no shard found there" in refusal(f"wds:{shards}/absent-*.tar")
    assert "no shard found there" in refusal(f"wds:{shards}/absent.tar")
    assert "more than 100,000 files" in refusal(f"wds:{shards}/train-{{0..999999999}}.tar")
    assert "more than 100,000 files" in refusal(f"wds:{shards}/{{0..99999}}{{0..99999}}.tar")
    assert "train-000.tar twice" in refusal(f"wds:{shards}/train-{{000,000}}.tar")
    write_tar(shards / "other" / "train-000.tar", {"a.jpg": b""})
    assert "two shards are named 'train-000.tar'" in refusal(f"wds:{shards}/{{,other/}}train-000.tar")


def test_one_truncated_shard_is_named(shards: Path) -> None:
    whole = (shards / "train-001.tar").read_bytes()
    (shards / "train-001.tar").write_bytes(whole[:540])
    assert "train-001.tar: truncated or damaged" in refusal(f"wds:{shards}")


def test_it_pickles_small_and_has_no_chunks_on_a_disk(shards: Path) -> None:
    source = open_source(f"wds:{shards}")
    packed = pickle.dumps(source)
    assert len(packed) < 4000
    assert samples(pickle.loads(packed)) == samples(source)
    assert source.chunks is None  # type: ignore[attr-defined]
    assert Subset(source, [1]).chunks is None
    assert Relabelled(source, None).chunks is None


KEYS = st.text("abé_-7", min_size=1, max_size=8)
LABELS = st.one_of(st.none(), st.tuples(st.sampled_from(["cls", "json"]), st.integers(-1, 30)))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sets=st.lists(
        st.dictionaries(KEYS, st.tuples(st.binary(max_size=900), LABELS), max_size=6), min_size=1, max_size=3
    ).filter(any),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    seed=st.integers(0, 2**32),
)
def test_any_samples_in_any_order_come_back(
    tmp_path: Path, sets: list[dict[str, tuple[bytes, tuple[str, int] | None]]], form: int, seed: int
) -> None:
    folder = tmp_path / f"{seed}-{form}"
    expected = {}
    for number, contents in enumerate(sets):
        members = []
        for key, (data, label) in contents.items():
            members.append((f"{key}.jpg", data))
            if label:
                kind, value = label
                members.append(
                    (f"{key}.{kind}", (str(value) if kind == "cls" else json.dumps({"label": value})).encode())
                )
            expected[f"{number}.tar/{key}"] = (data, label[1] if label and label[1] >= 0 else None)
        np.random.default_rng(seed).shuffle(members)
        write_tar(folder / f"{number}.tar", members, form=form)
    source = open_source(f"wds:{folder}/{{0..{len(sets) - 1}}}.tar")
    assert {sample.id: (sample.data, sample.label) for sample in samples(source)} == expected
    chosen = Subset(source, np.random.default_rng(seed).permutation(len(source))[: len(source) // 2])
    assert all((sample.data, sample.label) == expected[sample.id] for sample in samples(chosen))


def test_what_the_webdataset_writer_leaves_behind_reads(tmp_path: Path) -> None:
    """Its shards: no folders, ustar headers, one `KEY.EXT` after the other, keys with dots before the extension cut."""
    out = io.BytesIO()
    for number in range(3):
        for ending, data in (("cls", b"%d" % number), ("jpg", png(number)), ("json", b'{"caption": "x"}')):
            out.write(header(b"sample%06d.%s" % (number, ending.encode()), len(data)) + padded(data))
    out.write(bytes(1024))
    (tmp_path / "s.tar").write_bytes(out.getvalue())
    source = open_source(f"wds:{tmp_path}/s.tar")
    assert [(sample.id, sample.data, sample.label) for sample in samples(source)] == [
        (f"s.tar/sample{n:06d}", png(n), n) for n in range(3)
    ]

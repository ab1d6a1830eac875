"""Looking through tar files: what other programs wrote is found, what nobody should read is refused."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import END, header, padded, tar_bytes

from buttress.errors import SourceError
from buttress.sources.source import nfc
from buttress.sources.tar_scan import Members, scan

PART = st.text("ab.é\u0301日 -_", min_size=1, max_size=60).filter(lambda part: not part.startswith("."))
NAMES = st.lists(PART, min_size=1, max_size=6).map("/".join).map(lambda stem: stem + ".jpg")
FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def scanned(data: bytes) -> Members:
    return scan(lambda start, length: data[start : start + length], len(data), "x.tar")


def refusal(data: bytes) -> str:
    with pytest.raises(SourceError, match=r"^x\.tar: ") as caught:
        scanned(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None)
@given(contents=st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6), form=st.sampled_from(FORMS))
def test_what_tarfile_writes_is_found_in_every_format(contents: dict[str, bytes], form: int) -> None:
    if form == tarfile.USTAR_FORMAT:  # it has no room for the others
        contents = {name: data for name, data in contents.items() if len(name.encode()) < 100}
    data = tar_bytes(contents, form)
    members = scanned(data)
    assert members.names == tuple(map(nfc, contents))
    for (name, content), offset, size, check in zip(
        contents.items(), members.offsets, members.sizes, members.checks, strict=True
    ):
        assert data[offset : offset + size] == content, name
        assert zlib.crc32(data[offset - 512 : offset]) == check
    assert set(members.labels.tolist()) <= {-1}


def test_images_and_labels_are_members_and_all_else_is_counted() -> None:
    files = {
        "./a/1.JPG": b"x",
        "a/1.cls": b" 3\n",
        "a/1.json": b'{"label": 4, "text": "e"}',
        "a/2.json": b"{}",
        "a/3.json": b'{"label": null}',
        "readme.txt": b"",
        "a/4.seg.png": b"",
        "._1.jpg": b"",
        ".hidden/1.jpg": b"",
        "a/.thumb.png": b"",
    }
    members = scanned(tar_bytes(files))
    assert members.names == ("a/1.JPG", "a/1.cls", "a/1.json", "a/2.json", "a/3.json", "a/4.seg.png")
    assert members.labels.tolist() == [-1, 3, 4, -1, -1, -1]
    assert members.others == 4


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("cls", "12", 12),
        ("cls", "-1", -1),
        ("cls", "-2", -2),
        ("cls", "cat", -2),
        ("cls", "", -2),
        ("cls", "1" * 65, -2),
        ("cls", str(2**31), -2),
        ("json", '{"label": true}', -2),
        ("json", '{"label": "cat"}', -2),
        ("json", '{"label": 1.5}', -2),
        ("json", '{"label": 1e400}', -2),
        ("json", "[1]", -1),
        ("json", '{"label": 7', -2),
        ("json", "[" * 100_000, -2),
        ("json", " " * 1024 * 1024 + '{"label": 1}', -2),
        ("json", '{"label": ' + "9" * 5000 + "}", -2),
    ],
)
def test_labels(name: str, text: str, label: int) -> None:
    assert scanned(tar_bytes({f"a.{name}": text.encode()})).labels.tolist() == [label]


def test_a_folder_entry_is_no_file_and_a_link_has_no_size() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (("./", tarfile.DIRTYPE), ("cat", tarfile.DIRTYPE), ("cat/a.jpg", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "../../etc/passwd" if kind == tarfile.SYMTYPE else ""
            tar.addfile(entry)
    members = scanned(out.getvalue())
    assert (members.names, members.sizes.tolist(), members.others) == (("cat/a.jpg",), [-1], 0)


def test_archives_of_programs_before_posix() -> None:
    old = header(b"d/", kind=b"\0", magic=b"") + header(b"d/a.png", 3, b"\0", magic=b"") + padded(b"abc") + END
    assert scanned(old).names == ("d/a.png",)
    long_size = header(b"a.png", b"\x80" + (3).to_bytes(11, "big")) + padded(b"abc") + END
    assert scanned(long_size).sizes.tolist() == [3]


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "a/../../b.jpg", "a/..", "..", "", "/"])
@pytest.mark.parametrize("kind", [b"0", b"2", b"5"])
def test_R5_names_that_leave_the_archive(name: str, kind: bytes) -> None:
    assert "leads out of the archive" in refusal(header(name.encode(), 0, kind) + END)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (header(b"a.jpg", 10**9) + END, "truncated or damaged ('a.jpg' would end at byte 1,000,000,512"),
        (header(b"a.jpg", b"\x80" + b"\xff" * 11) + END, "truncated or damaged"),
        (header(b"a.jpg", b"\xff" * 12) + END, "not a tar file, or damaged"),
        (header(b"a.jpg", b"-0000000001\0") + END, "not a tar file, or damaged"),
        (header(b"a.jpg", b"0000000009\0\0") + END, "not a tar file, or damaged"),
        (header(b"x", 70_000, b"x") + bytes(70_144) + END, "an extended header of 70,000 bytes"),
        (header(b"x", 8 * 10**9, b"x") + END, "truncated or damaged (an extended header"),
        (header(b"x", 8 * 10**9, b"L") + END, "truncated or damaged (an extended header"),
        (header(b"a.jpg", kind=b"S") + END, "sparse or unknown kind"),
        (header(b"a.jpg", kind=b"M") + END, "sparse or unknown kind"),
        (header(b"\xff.jpg") + END, "is not UTF-8"),
        (header(b"x", 10, b"x") + padded(b"9 path=ab\n") + header(b"a.jpg") + END, "damaged extended header"),
        (header(b"x", 9, b"x") + padded(b"99 path=a") + header(b"a.jpg") + END, "damaged extended header"),
        (header(b"x", 9, b"x") + padded(b"0 path=a\n") + header(b"a.jpg") + END, "damaged extended header"),
        (header(b"x", 10, b"x") + padded(b"10 size=-\n") + header(b"a.jpg") + END, "a header says size"),
        (header(b"x", 13, b"x") + padded(b"13 size=9999\n") + header(b"a.jpg") + END, "truncated or damaged ('a.jpg'"),
        (header(b"x", 13, b"x") + padded(b"13 path=../a\n") + header(b"a") + END, "leads out of the archive"),
        (header(b"x", 12, b"x") + padded(b"12 path=a\0b\n") + header(b"a") + END, "leads out of the archive"),
        (header(b"x", 11, b"g") + padded(b"11 path=ab\n") + header(b"a.jpg") + END, "a global header"),
        (header(b"x", 22, b"x") + padded(b"22 GNU.sparse.major=1\n") + header(b"a") + END, "sparse"),
        (header(b"a.jpg") + END + header(b"b.jpg") + END, "data behind its end mark"),
        (header(b"a.jpg"), "no end mark"),
        (b"", "no end mark at byte 0"),
        (b"\x1f\x8b\x08" + bytes(600), "compressed (gzip)"),
        (b"BZh9" + bytes(600), "compressed (bzip2)"),
        (b"\xfd7zXZ\0" + bytes(600), "compressed (xz)"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "compressed (zstd)"),
        (b"hello" * 200, "not a tar file"),
    ],
)
def test_R5_hostile_archives(data: bytes, match: str) -> None:
    assert match in refusal(data)


def test_a_comment_of_git_archive_is_fine() -> None:
    data = header(b"pax_global_header", 18, b"g") + padded(b"18 comment=abcdef\n") + header(b"a.jpg") + END
    assert scanned(data).names == ("a.jpg",)


def test_R4_cut_at_any_length_it_is_refused() -> None:
    data = tar_bytes(
        {"cat/" + "long" * 60 + ".jpg": bytes(700), "cat/a.jpg": b"x", "cat/a.cls": b"3"}, tarfile.GNU_FORMAT
    )
    end = len(data.rstrip(b"\0"))
    end += -end % 512
    for length in range(end + 512):
        refusal(data[:length])
    assert len(scanned(data[: end + 512]).names) == 3


def test_R6_only_our_error_comes_out_of_mutated_archives() -> None:
    rng = np.random.default_rng(6)
    files = {
        "cat/" + "é" * 60 + ".jpg": bytes(range(200)),
        "dog/b.png": b"x" * 600,
        "b.cls": b"3",
        "b.json": b'{"label": 2}',
    }
    whole = [tar_bytes(files, form) for form in FORMS[1:]]
    refused = 0
    for _ in range(3000):
        data = bytearray(whole[int(rng.integers(len(whole)))])
        for place in rng.integers(0, len(data), int(rng.integers(1, 6))):
            data[place] = rng.integers(256)
        if rng.integers(4) == 0:
            # a right checksum lets the fault through to what is behind it
            start = int(rng.integers(len(data) // 512)) * 512
            block = data[start : start + 512]
            block[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % (sum(block) % 8**6)
        try:
            members = scanned(bytes(data))
        except SourceError:
            refused += 1
        else:
            assert (members.offsets + np.maximum(members.sizes, 0) <= len(data)).all()
    assert 300 < refused < 3000


def test_R5_zeros_without_end_are_not_read() -> None:
    with pytest.raises(SourceError, match="bytes behind its end mark; make it anew"):
        scan(lambda start, length: bytes(length), 2**50, "x.tar")


def test_R5_memory_is_bounded_by_what_is_found() -> None:
    claims = 2**62
    block = header(b"a.jpg", b"\x80" + claims.to_bytes(11, "big"))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError):
            # a reader that answers as if the file were that large
            scan(
                lambda start, length: (block + bytes(length))[:length] if start < 512 else bytes(length), 2**40, "x.tar"
            )
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()

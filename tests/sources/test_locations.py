"""Patterns and queries of source URIs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.errors import SourceError
from buttress.sources.locations import MAX_FILES, expand_braces, files_of, split_query


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("plain.tar", ["plain.tar"]),
        ("a{0..2}", ["a0", "a1", "a2"]),
        ("a{08..10}b", ["a08b", "a09b", "a10b"]),
        ("{1..03}", ["01", "02", "03"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{x,y}{0..1}", ["x0", "x1", "y0", "y1"]),
        ("{a,b,}c", ["ac", "bc", "c"]),
        ("{x}", ["{x}"]),
        ("{", ["{"]),
        ("{0..}", ["{0..}"]),
        ("", [""]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


PIECE = st.one_of(
    st.text("ab-7", max_size=3),
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 3)).map(
        lambda ends: f"{{{ends[0]:0{ends[2]}d}..{ends[1]:0{ends[2]}d}}}"
    ),
    st.lists(st.text("xy", max_size=2), min_size=2, max_size=3).map(lambda words: "{" + ",".join(words) + "}"),
)


@settings(deadline=None, max_examples=30)
@given(pieces=st.lists(PIECE, min_size=1, max_size=3))
def test_braces_are_those_of_a_shell(pieces: list[str]) -> None:
    pattern = "".join(pieces)
    shell = subprocess.run(["bash", "-c", f"printf '%s\\n' _{pattern}"], capture_output=True, text=True, check=True)
    assert ["_" + name for name in expand_braces(pattern)] == shell.stdout.splitlines()


@pytest.mark.parametrize("pattern", ["{0..100000}", "{0..999999999}", "{0..99999}{0..99999}", "{0..9}" * 40])
def test_R5_braces_without_end_are_refused(pattern: str) -> None:
    with pytest.raises(SourceError, match="more than 100,000 files"):
        expand_braces(pattern)


def test_braces_within_braces_are_refused() -> None:
    with pytest.raises(SourceError, match="braces within braces"):
        expand_braces("{a,b{0..1}}.tar")


def test_as_many_as_are_allowed() -> None:
    assert len(expand_braces("{1..100000}")) == MAX_FILES


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a[1]").mkdir()
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / "a[1]" / name).touch()
    both = [str(tmp_path / "a[1]" / name) for name in ("a.tar", "b.tar")]
    assert files_of(str(tmp_path / "a[1]"), ".tar") == both
    assert files_of(f"{tmp_path}/a*/?.tar", ".tar") == both
    assert files_of(f"{tmp_path}/**/*.tar", ".tar") == both
    assert files_of(f"{tmp_path}/absent", ".tar") == []
    monkeypatch.chdir(tmp_path)
    assert files_of("a[1]/c.txt", ".tar") == [str(tmp_path / "a[1]" / "c.txt")]


def test_queries() -> None:
    assert split_query("x", "a.tar", ("k",)) == ("a.tar", {})
    assert split_query("x", "a?.tar", ("k",)) == ("a?.tar", {})
    assert split_query("x", "a?.tar?k=v%20w&l=1", ("k", "l")) == ("a?.tar", {"k": "v w", "l": "1"})
    for query, match in (("?m=1", "unknown key 'm'"), ("?k=", "k= must name one value"), ("?k=1&k=2", "once")):
        with pytest.raises(SourceError, match=match):
            split_query("x", f"a{query}", ("k", "l"))

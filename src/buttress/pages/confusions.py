"""Pairs of classes that models confuse, with pictures of them where those are still there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from buttress.errors import ButtressError
from buttress.pages.entry import Entry
from buttress.pages.pictures import english, picture
from buttress.sources import Source, fingerprint, open_source
from buttress.sources.remote import is_remote

PICTURES = 3  # of a pair
MOST = 30  # pairs on a page, and at most `PAIRS` of a model
PAIRS = 6
# Not those of libraries that may fetch a whole data set for a few pictures.
LOCAL = ("digits", *(f"{scheme}:" for scheme in ("folder", "parquet", "tar", "wds")), "imagenet-")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Images of `truth` that were taken for `predicted`: how many, and pictures of some, none for one that is gone."""

    truth: str
    predicted: str
    images: int
    pictures: tuple[tuple[str, dict[str, Any] | None], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusions:
    """The most frequent pairs of a model, of how many in the document; `note` says why pictures are missing."""

    entry: Entry
    pairs: tuple[Pair, ...]
    told: int
    note: str


class Album:
    """Pictures by source and sample id; a source is opened once."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Source | None, dict[str, int], str]] = {}

    def note(self, entry: Entry) -> str:
        """Why there are no pictures, or may be others; empty where there are."""
        uri, images = _data(entry)
        source, _, why = self._opened(uri)
        if source is not None and images is not None and fingerprint(source) != images:
            return f"{uri} has changed since: pictures are of what bears the same names now."
        return why

    def picture(self, entry: Entry, sample_id: str) -> dict[str, Any] | None:
        """A sample's picture, none where it is not there any more or cannot be decoded."""
        source, places, _ = self._opened(_data(entry)[0])
        if source is None or sample_id not in places:
            return None
        try:
            return picture(source, places[sample_id], compressed=True)
        except (ButtressError, OSError):
            return None

    def _opened(self, uri: str) -> tuple[Source | None, dict[str, int], str]:
        if uri not in self._sources:
            self._sources[uri] = _open(uri)
        return self._sources[uri]


def confusions(entry: Entry, album: Album, models: int) -> Confusions | None:
    """The most frequent pairs of a model; none where the document does not tell.

    Args:
        entry: the model.
        album: where the pictures come from.
        models: how many models share the page.
    """
    told = None if entry.evaluation is None else entry.evaluation.details.get("confused")
    if told is None:
        return None
    shown = told[: max(2, min(PAIRS, MOST // models))]
    return Confusions(
        entry=entry,
        pairs=tuple(_pair(entry, each, album) for each in shown),
        told=len(told),
        note=album.note(entry) if shown else "",
    )


def _pair(entry: Entry, told: dict[str, Any], album: Album) -> Pair:
    ids: Sequence[str] = told["ids"][:PICTURES]
    return Pair(
        truth=english(told["truth"]),
        predicted=english(told["predicted"]),
        images=told["images"],
        pictures=tuple((each, album.picture(entry, each)) for each in ids),
    )


def _data(entry: Entry) -> tuple[str, str | None]:
    assert entry.evaluation is not None
    return str(entry.evaluation.data.get("uri", "")), entry.evaluation.fingerprint


def _open(uri: str) -> tuple[Source | None, dict[str, int], str]:
    """The source with the places of its ids, or why it is not opened."""
    if is_remote(uri) or not uri.startswith(LOCAL):  # a page is no reason to fetch a data set
        return None, {}, f"No pictures: {uri} is not opened for them."
    try:
        source = open_source(uri)
        return source, {sample_id: place for place, sample_id in enumerate(source.ids)}, ""
    except (ButtressError, OSError) as failure:
        return None, {}, f"No pictures, for the images are not there any more: {' '.join(str(failure).split())}"

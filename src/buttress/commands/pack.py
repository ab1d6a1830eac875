"""`buttress pack`: make images small and cut them into tiles once, so that training decodes less."""

from __future__ import annotations

from pathlib import Path


def pack(
    source: str,
    *,
    out: Path,
    short_side: int = 320,
    quality: int = 90,
    workers: int | None = None,
    max_bad: float = 0.001,
) -> None:
    """Write a smaller copy of some images, of which a training view decodes no more than it shows.

    The copy is a source, packed:DIR. Its pixels are not those of the original: a teacher labels the copy. Run again,
    it does only what is missing.

    Args:
        source: the images, e.g. folder:photos/train.
        out: the folder to make.
        short_side: pixels that the shorter side is brought to; smaller images keep theirs.
        quality: of the JPEGs, 1..100.
        workers: processes; the default is one per core; 0 = this process.
        max_bad: largest share, 0..1, of images that may fail to decode; they are listed and left out.
    """
    from buttress.sources import open_source
    from buttress.sources.packing import PackSettings, pack_source
    from buttress.terminal import note, number

    settings = PackSettings(short_side=short_side, quality=quality)
    done = pack_source(open_source(source), settings, out, workers=workers, max_bad=max_bad)
    before = f" (of {done.source_bytes / 1e6:,.1f} MB)" if done.source_bytes else ""
    note(f"{out}: {number(done.images, 'image')}, {done.bytes / 1e6:,.1f} MB{before}; use it as packed:{out}")

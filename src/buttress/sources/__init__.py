"""Images in: every collection is a `Source`, indexable, with stable ids. `open_source` takes a URI."""

from buttress.sources.arrays import ArraySource, Relabelled, Subset
from buttress.sources.decode import decode, image_size
from buttress.sources.folder import FolderSource
from buttress.sources.identity import content_hash, fingerprint, id_hash, id_hashes
from buttress.sources.opening import open_source
from buttress.sources.parquet import ParquetSource
from buttress.sources.source import Sample, Source, UndecodableImage

__all__ = [
    "ArraySource",
    "FolderSource",
    "ParquetSource",
    "Relabelled",
    "Sample",
    "Source",
    "Subset",
    "UndecodableImage",
    "content_hash",
    "decode",
    "fingerprint",
    "id_hash",
    "id_hashes",
    "image_size",
    "open_source",
]
